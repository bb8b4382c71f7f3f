"""Write the pages of ``docs/`` that are made from the code: ``python docs/generate.py``. A test compares them."""

from __future__ import annotations

import ast
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from pydantic_core import PydanticUndefined  # noqa: E402 (the repository's root must be importable first)

import settings  # noqa: E402
from docs.mistakes import mistakes_page  # noqa: E402
from docs.observability import observability_page  # noqa: E402
from docs.right_sizing import right_sizing_page  # noqa: E402
from docs.traffic import traffic_page  # noqa: E402

SECTIONS = {
    settings.TierSettings: "tiers[]",
    settings.LatencyTarget: "tiers[].slo",
    settings.Traffic: "tiers[].traffic",
    settings.Disaggregation: "tiers[].disaggregation",
    settings.ApiPrice: "tiers[].apiUsdPerMillionTokens",
    settings.Routing: "routing",
    settings.Capacity: "capacity",
    settings.Schedule: "schedule",
    settings.WorkingHours: "schedule.workingHours",
    settings.Scaling: "scaling",
    settings.Network: "network",
    settings.Oidc: "network.oidc",
    settings.Access: "access",
    settings.Cluster: "cluster",
    settings.Observability: "observability",
    settings.Prices: "prices",
    settings.Budget: "budget",
}


BRING_YOUR_OWN = """config:
  aws:region: us-east-1
  frugal-llm:network:
    vpcId: vpc-0123456789abcdef0
    vpcCidr: 10.8.0.0/16 # the block of that VPC that holds the subnets
    zones: [us-east-1a, us-east-1b, us-east-1c]
    privateSubnetIds: [subnet-0000000000000000a, subnet-0000000000000000b, subnet-0000000000000000c]
  frugal-llm:access: {accountId: "111122223333"}
  frugal-llm:cluster:
    kubernetesVersion: "1.36"
    roleArn: arn:aws:iam::111122223333:role/eks-control-plane
    nodeRoleArn: arn:aws:iam::111122223333:role/eks-nodes
    secretsKeyArn: arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab
"""
"""Each part may be brought alone; a test plans it."""


_BRING_YOUR_OWN_PAGE = """
## Bring your own

A VPC, the roles of control plane and nodes, and the key of Kubernetes secrets may be there already; each may be
brought alone. Of a VPC that is there the stack makes nothing: its private subnets need a route out (images and
weights come from the internet) and should have an S3 gateway endpoint. The stack tags its subnets for load balancers
and leaves the tags on destroy; Karpenter takes them by their ids, so several stacks can share them. The bill then has
no NAT gateway, public address or key of its own; GB that leave are still counted as through NAT. A plan whose nodes do
not fit into `vpcCidr` is refused; it does not look up sizes and zones of subnets, the policies of roles, the kind of
the key.

```yaml
"""


def settings_page() -> str:
    """The reference of every setting, from the models' fields and their docstrings."""
    lines = [
        "# Settings",
        "",
        "Made from `settings.py` by `make docs`. Keys of the namespace `frugal-llm`; `aws:region` names the region.",
        "`tags` is a map of tags for every AWS resource. The secrets `huggingFaceToken` and `apiKey` are set with",
        "`pulumi config set --secret` and refused in clear.",
    ]
    for model, path in SECTIONS.items():
        lines += ["", f"## {path}", "", (model.__doc__ or "").strip(), ""]
        lines += ["| key | default | meaning |", "|---|---|---|"]
        lines += list(_rows(model))
    return "\n".join(lines) + f"\n{_BRING_YOUR_OWN_PAGE}{BRING_YOUR_OWN}```\n"


def _rows(model: type[settings.Settings]) -> Iterator[str]:
    meanings = _meanings(model.__name__)
    for name, field in model.model_fields.items():
        default = field.default
        if default is PydanticUndefined:
            shown = "required"
        elif isinstance(default, settings.Settings):
            shown = "see below"
        else:
            shown = "-" if default is None or default == () else f"`{_yaml(default)}`"
        yield f"| `{field.alias}` | {shown} | {meanings[name]} |"


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _meanings(model: str) -> dict[str, str]:
    """The docstring under each field. Pydantic could read them too, at a third of the time of a whole plan."""
    tree = ast.parse((ROOT / "settings.py").read_text())
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == model)
    found: dict[str, str] = {}
    for field, after in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                text = str(after.value.value)
            found[field.target.id] = " ".join(text.replace("``", "`").split()).replace("|", "\\|")
    return found


if __name__ == "__main__":
    (ROOT / "docs" / "configuration.md").write_text(settings_page())
    (ROOT / "docs" / "mistakes.md").write_text(mistakes_page())
    (ROOT / "docs" / "observability.md").write_text(observability_page())
    (ROOT / "docs" / "right-sizing.md").write_text(right_sizing_page())
    (ROOT / "docs" / "traffic.md").write_text(traffic_page())
