"""A small program that uses every option the recording keeps."""

import json

import pulumi
import pulumi_aws as aws
import pulumi_eks as eks
import pulumi_kubernetes as k8s


class Group(pulumi.ComponentResource):
    """Two queues under one parent."""

    first: pulumi.Output[str]

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("sample:index:Group", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        queues = [aws.sqs.Queue(f"{name}-queue-{number}", opts=child) for number in (1, 2)]
        self.first = queues[0].arn
        self.register_outputs({"first": self.first})


config = pulumi.Config("sample")
cloud = aws.Provider("aws", region="eu-central-1", default_tags={"tags": {"project": "sample"}})
account = aws.get_caller_identity(opts=pulumi.InvokeOptions(provider=cloud)).account_id

group = Group("group", pulumi.ResourceOptions(providers=[cloud]))
vpc = aws.ec2.Vpc(
    "vpc",
    cidr_block="10.0.0.0/16",
    opts=pulumi.ResourceOptions(
        provider=cloud,
        protect=True,
        ignore_changes=["tags"],
        aliases=[pulumi.Alias(name="old-vpc")],
        custom_timeouts=pulumi.CustomTimeouts(delete="30m"),
    ),
)
role = aws.iam.Role(
    "role",
    assume_role_policy=pulumi.Output.json_dumps({"Statement": [{"Resource": group.first, "Account": account}]}),
    opts=pulumi.ResourceOptions(provider=cloud, depends_on=[group], deleted_with=vpc),
)
cluster = eks.Cluster(
    "cluster",
    name="sample",
    vpc_id=vpc.id,
    skip_default_node_group=True,
    opts=pulumi.ResourceOptions(
        providers=[cloud, eks.Provider("eks")],
    ),
)
kubernetes = k8s.Provider("kubernetes", kubeconfig=cluster.kubeconfig_json)
on_cluster = pulumi.ResourceOptions(provider=kubernetes)
namespace = k8s.core.v1.Namespace("apps", metadata={"name": "apps"}, opts=on_cluster)
secret = k8s.core.v1.Secret(
    "token",
    metadata={"namespace": namespace.metadata.name},
    string_data={"token": config.require_secret("token")},
    opts=on_cluster,
)
k8s.core.v1.ConfigMap(
    "settings",
    metadata={"name": "settings", "namespace": "apps"},
    data={"vpc": vpc.id, "queue": group.first, "replicas": json.dumps(config.require_object("replicas"))},
    opts=pulumi.ResourceOptions.merge(on_cluster, pulumi.ResourceOptions(depends_on=[secret])),
)
k8s.helm.v3.Release(
    "metrics",
    chart="metrics",
    version="1.2.3",
    namespace="apps",
    repository_opts=k8s.helm.v3.RepositoryOptsArgs(repo="https://charts.example.org"),
    values={"role": role.arn, "password": config.require_secret("token"), "replicas": 2},
    opts=on_cluster,
)

pulumi.log.info("the report of the program")
pulumi.log.warn("one thing to watch")
pulumi.log.info("about the vpc", resource=vpc)
pulumi.export("kubeconfig", pulumi.Output.secret(cluster.kubeconfig_json))
pulumi.export("vpc", vpc.id)
pulumi.export("region", "eu-central-1")
