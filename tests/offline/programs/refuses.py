"""Stops with a message for a person, after a first look at its configuration and before the first resource."""

import pulumi
import pulumi_aws as aws

if pulumi.Config("sample").get("mode") != "right":
    raise pulumi.RunError("2 problems in the configuration, nothing was created:\n  - sample:mode must be right")

aws.sqs.Queue("never")
