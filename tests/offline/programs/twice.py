"""Registers two resources under one URN: children of one name under two parents of one type."""

import pulumi
import pulumi_aws as aws


class Pair(pulumi.ComponentResource):
    """A parent whose child's name does not derive from its own."""

    def __init__(self, name: str) -> None:
        super().__init__("sample:index:Pair", name)
        aws.sqs.Queue("queue", opts=pulumi.ResourceOptions(parent=self))
        self.register_outputs({})


Pair("one")
Pair("two")
