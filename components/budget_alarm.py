"""The budget in AWS's own books: mails when the stack's bill nears or passes what it may cost."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws


@dataclass(frozen=True, kw_only=True)
class BudgetAlarmArgs:
    """What the alarm watches."""

    monthly_usd: float
    notify: tuple[str, ...]
    """E-mail addresses, at most 10."""
    tag_key: str
    """The cost allocation tag on all of the stack's resources. AWS counts nothing by it until the payer account has
    activated it in its billing console, which no member account can do for itself."""
    tag_value: str


class BudgetAlarm(pulumi.ComponentResource):
    """A monthly cost budget of the stack with three mails: 80 % spent, 100 % forecast, 100 % spent.

    AWS keeps a budget without mails too, free of charge, and refuses a mail to nobody: without addresses the console
    alone shows what is spent of it.
    """

    budget_name: pulumi.Output[str]

    def __init__(self, name: str, args: BudgetAlarmArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("frugal-llm:budget:BudgetAlarm", name, {}, opts)
        budget = aws.budgets.Budget(
            f"{name}-monthly",
            budget_type="COST",
            time_unit="MONTHLY",
            limit_amount=f"{args.monthly_usd:.2f}",
            limit_unit="USD",
            cost_filters=[
                aws.budgets.BudgetCostFilterArgs(name="TagKeyValue", values=[f"user:{args.tag_key}${args.tag_value}"])
            ],
            notifications=[
                aws.budgets.BudgetNotificationArgs(
                    comparison_operator="GREATER_THAN",
                    threshold=threshold,
                    threshold_type="PERCENTAGE",
                    notification_type=kind,
                    subscriber_email_addresses=list(args.notify),
                )
                for threshold, kind in ((80, "ACTUAL"), (100, "FORECASTED"), (100, "ACTUAL"))
                if args.notify
            ],
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.budget_name = budget.name
        self.register_outputs({"budget_name": self.budget_name})
