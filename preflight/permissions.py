"""Which IAM actions the program's resources need of the one who runs ``pulumi up``, again, and ``pulumi destroy``.

Source: the handlers' permissions in CloudFormation's resource schemas, as cfn-lint 1.58.0 carries them, less what the
program does not use (replication, logging targets, …), plus what Pulumi's provider reads of each resource.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

_EC2_TAGS = "ec2:CreateTags ec2:DeleteTags"
_SECURITY_GROUP = (
    "ec2:AuthorizeSecurityGroupEgress ec2:AuthorizeSecurityGroupIngress ec2:RevokeSecurityGroupEgress "
    "ec2:RevokeSecurityGroupIngress ec2:DescribeSecurityGroups ec2:DescribeSecurityGroupRules"
)
_RULE = f"{_SECURITY_GROUP} ec2:ModifySecurityGroupRules {_EC2_TAGS}"
_ROLE = (
    "iam:CreateRole iam:DeleteRole iam:GetRole iam:PassRole iam:TagRole iam:UntagRole iam:UpdateAssumeRolePolicy "
    "iam:UpdateRole iam:UpdateRoleDescription iam:ListRolePolicies iam:ListAttachedRolePolicies "
    "iam:ListInstanceProfilesForRole"
)
_ATTACHMENT = "iam:AttachRolePolicy iam:DetachRolePolicy iam:ListAttachedRolePolicies"

#: By type token without ``aws:``; the cluster's component makes the control plane, its role and security groups.
_ACTIONS: Mapping[str, str] = {
    "budgets/budget:Budget": (
        "budgets:ModifyBudget budgets:ViewBudget budgets:TagResource budgets:UntagResource budgets:ListTagsForResource"
    ),
    "cloudwatch/eventRule:EventRule": (
        "events:PutRule events:DeleteRule events:DescribeRule events:TagResource events:UntagResource "
        "events:ListTagsForResource"
    ),
    "cloudwatch/eventTarget:EventTarget": "events:PutTargets events:RemoveTargets events:ListTargetsByRule",
    "cloudwatch/logGroup:LogGroup": (
        "logs:CreateLogGroup logs:DeleteLogGroup logs:DescribeLogGroups logs:PutRetentionPolicy "
        "logs:DeleteRetentionPolicy logs:TagResource logs:UntagResource logs:ListTagsForResource"
    ),
    "ec2/defaultSecurityGroup:DefaultSecurityGroup": f"{_SECURITY_GROUP} {_EC2_TAGS}",
    "ec2/eip:Eip": f"ec2:AllocateAddress ec2:ReleaseAddress ec2:DescribeAddresses {_EC2_TAGS}",
    "ec2/internetGateway:InternetGateway": (
        "ec2:CreateInternetGateway ec2:DeleteInternetGateway ec2:AttachInternetGateway ec2:DetachInternetGateway "
        f"ec2:DescribeInternetGateways {_EC2_TAGS}"
    ),
    "ec2/launchTemplate:LaunchTemplate": (
        "ec2:CreateLaunchTemplate ec2:CreateLaunchTemplateVersion ec2:DeleteLaunchTemplate ec2:ModifyLaunchTemplate "
        f"ec2:DescribeLaunchTemplates ec2:DescribeLaunchTemplateVersions {_EC2_TAGS}"
    ),
    "ec2/natGateway:NatGateway": (f"ec2:CreateNatGateway ec2:DeleteNatGateway ec2:DescribeNatGateways {_EC2_TAGS}"),
    "ec2/route:Route": "ec2:CreateRoute ec2:ReplaceRoute ec2:DeleteRoute ec2:DescribeRouteTables",
    "ec2/routeTable:RouteTable": (f"ec2:CreateRouteTable ec2:DeleteRouteTable ec2:DescribeRouteTables {_EC2_TAGS}"),
    "ec2/routeTableAssociation:RouteTableAssociation": (
        "ec2:AssociateRouteTable ec2:ReplaceRouteTableAssociation ec2:DisassociateRouteTable ec2:DescribeRouteTables"
    ),
    "ec2/securityGroup:SecurityGroup": (
        f"ec2:CreateSecurityGroup ec2:DeleteSecurityGroup {_SECURITY_GROUP} {_EC2_TAGS}"
    ),
    "ec2/subnet:Subnet": (
        f"ec2:CreateSubnet ec2:DeleteSubnet ec2:DescribeSubnets ec2:ModifySubnetAttribute {_EC2_TAGS}"
    ),
    "ec2/tag:Tag": f"{_EC2_TAGS} ec2:DescribeTags",
    "ec2/vpc:Vpc": (
        "ec2:CreateVpc ec2:DeleteVpc ec2:DescribeVpcs ec2:DescribeVpcAttribute ec2:ModifyVpcAttribute "
        f"ec2:DescribeNetworkAcls ec2:DescribeRouteTables ec2:DescribeSecurityGroups {_EC2_TAGS}"
    ),
    "ec2/vpcEndpoint:VpcEndpoint": (
        "ec2:CreateVpcEndpoint ec2:DeleteVpcEndpoints ec2:ModifyVpcEndpoint ec2:DescribeVpcEndpoints "
        f"ec2:DescribePrefixLists {_EC2_TAGS}"
    ),
    "eks/accessEntry:AccessEntry": (
        "eks:CreateAccessEntry eks:DeleteAccessEntry eks:DescribeAccessEntry eks:UpdateAccessEntry eks:TagResource "
        "eks:UntagResource"
    ),
    "eks/accessPolicyAssociation:AccessPolicyAssociation": (
        "eks:AssociateAccessPolicy eks:DisassociateAccessPolicy eks:ListAssociatedAccessPolicies"
    ),
    "eks/addon:Addon": (
        "eks:CreateAddon eks:DeleteAddon eks:DescribeAddon eks:UpdateAddon eks:DescribeUpdate eks:TagResource "
        "eks:UntagResource eks:CreatePodIdentityAssociation eks:DeletePodIdentityAssociation "
        "eks:UpdatePodIdentityAssociation iam:GetRole iam:PassRole"
    ),
    "eks/nodeGroup:NodeGroup": (
        "eks:CreateNodegroup eks:DeleteNodegroup eks:DescribeNodegroup eks:UpdateNodegroupConfig "
        "eks:UpdateNodegroupVersion eks:DescribeUpdate eks:TagResource eks:UntagResource "
        "ec2:DescribeLaunchTemplateVersions ec2:RunInstances iam:CreateServiceLinkedRole iam:GetRole iam:PassRole"
    ),
    "eks/podIdentityAssociation:PodIdentityAssociation": (
        "eks:CreatePodIdentityAssociation eks:DeletePodIdentityAssociation eks:DescribePodIdentityAssociation "
        "eks:UpdatePodIdentityAssociation eks:TagResource eks:UntagResource iam:GetRole iam:PassRole"
    ),
    "iam/policy:Policy": (
        "iam:CreatePolicy iam:DeletePolicy iam:GetPolicy iam:GetPolicyVersion iam:ListPolicyVersions "
        "iam:CreatePolicyVersion iam:DeletePolicyVersion iam:TagPolicy iam:UntagPolicy"
    ),
    "iam/role:Role": _ROLE,
    "iam/rolePolicy:RolePolicy": "iam:PutRolePolicy iam:DeleteRolePolicy iam:GetRolePolicy",
    "iam/rolePolicyAttachment:RolePolicyAttachment": _ATTACHMENT,
    "kms/alias:Alias": "kms:CreateAlias kms:UpdateAlias kms:DeleteAlias kms:ListAliases",
    "kms/key:Key": (
        "kms:CreateKey kms:DescribeKey kms:EnableKeyRotation kms:GetKeyPolicy kms:GetKeyRotationStatus "
        "kms:PutKeyPolicy kms:UpdateKeyDescription kms:ScheduleKeyDeletion kms:TagResource kms:UntagResource "
        "kms:ListResourceTags"
    ),
    "s3/bucket:Bucket": (
        "s3:CreateBucket s3:DeleteBucket s3:ListBucket s3:GetBucketAcl s3:PutBucketTagging s3:GetBucketTagging "
        "s3:DeleteObject s3:DeleteObjectVersion s3:ListBucketVersions"
    ),
    "s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": (
        "s3:PutLifecycleConfiguration s3:GetLifecycleConfiguration"
    ),
    "s3/bucketOwnershipControls:BucketOwnershipControls": (
        "s3:PutBucketOwnershipControls s3:GetBucketOwnershipControls"
    ),
    "s3/bucketPolicy:BucketPolicy": "s3:PutBucketPolicy s3:GetBucketPolicy s3:DeleteBucketPolicy",
    "s3/bucketPublicAccessBlock:BucketPublicAccessBlock": (
        "s3:PutBucketPublicAccessBlock s3:GetBucketPublicAccessBlock"
    ),
    "s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": (
        "s3:PutEncryptionConfiguration s3:GetEncryptionConfiguration"
    ),
    "s3/bucketVersioning:BucketVersioning": "s3:PutBucketVersioning s3:GetBucketVersioning",
    "sqs/queue:Queue": (
        "sqs:CreateQueue sqs:DeleteQueue sqs:GetQueueAttributes sqs:SetQueueAttributes sqs:TagQueue sqs:UntagQueue "
        "sqs:ListQueueTags"
    ),
    "sqs/queuePolicy:QueuePolicy": "sqs:SetQueueAttributes sqs:GetQueueAttributes",
    "vpc/securityGroupEgressRule:SecurityGroupEgressRule": _RULE,
    "vpc/securityGroupIngressRule:SecurityGroupIngressRule": _RULE,
    "eks:index:Cluster": (
        "eks:CreateCluster eks:DeleteCluster eks:DescribeCluster eks:UpdateClusterConfig eks:UpdateClusterVersion "
        "eks:DescribeUpdate eks:TagResource eks:UntagResource iam:CreateServiceLinkedRole kms:CreateGrant "
        f"kms:DescribeKey {_ROLE} {_ATTACHMENT} "
        f"ec2:CreateSecurityGroup ec2:DeleteSecurityGroup {_SECURITY_GROUP} {_EC2_TAGS}"
    ),
}


def actions_of(types: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The actions that resources of these Pulumi types need, by service; and the AWS types of which none are known."""
    by_service: defaultdict[str, set[str]] = defaultdict(set)
    unknown: set[str] = set()
    for type_token in types:
        if not type_token.startswith(("aws:", "eks:")):
            continue
        actions = _ACTIONS.get(type_token.removeprefix("aws:"))
        if actions is None:
            unknown.add(type_token)
        else:
            for action in actions.split():
                by_service[action.partition(":")[0]].add(action)
    return {service: sorted(by_service[service]) for service in sorted(by_service)}, sorted(unknown)


def simulated_principal(arn: str) -> str:
    """The name of the role of an STS session's ARN, or nothing for a user's or a role's own ARN, which need no name.

    IAM's simulation takes the role itself, whose path the session's ARN leaves out.
    """
    resource = arn.rpartition(":")[2]
    return resource.split("/")[1] if resource.startswith("assumed-role/") else ""
