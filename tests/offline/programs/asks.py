"""Asks AWS for something that only an account can answer."""

import pulumi
import pulumi_aws as aws

pulumi.export("ami", aws.ec2.get_ami(most_recent=True, owners=["amazon"]).id)
