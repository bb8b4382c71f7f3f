"""The VPC: subnets over the plan's zones, the ways out, and private doors to AWS services; or one that is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components import iam
from planning.plan import ExistingVpc, NetworkPlan


@dataclass(frozen=True, kw_only=True)
class NetworkArgs:
    """What the network is built from."""

    plan: NetworkPlan
    region: str
    cluster_name: str
    """Karpenter finds the subnets that are made here by this name."""


class Network(pulumi.ComponentResource):
    """A VPC with public subnets for load balancers and NAT, and private ones for everything that computes.

    Of a VPC that is there it makes nothing but the tags that the load balancer controller looks for.
    """

    vpc_id: pulumi.Output[str]
    public_subnet_ids: pulumi.Output[Sequence[str]]
    private_subnet_ids: pulumi.Output[Sequence[str]]
    ready: tuple[pulumi.Resource, ...]
    """Everything between a node and AWS's APIs. Nodes and controllers depend on it: a node without a route never joins,
    and on destroy Karpenter can terminate no instance once the route to EC2 is gone."""

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("frugal-llm:network:Network", name, {}, opts)
        if args.plan.existing is not None:
            self._find(name, args.plan.zones, args.plan.existing)
        else:
            self._make(name, args)
        self.register_outputs(
            {
                "vpc_id": self.vpc_id,
                "public_subnet_ids": self.public_subnet_ids,
                "private_subnet_ids": self.private_subnet_ids,
            }
        )

    def _find(self, name: str, zones: Sequence[str], existing: ExistingVpc) -> None:
        self.vpc_id = pulumi.Output.from_input(existing.vpc_id)
        self.public_subnet_ids = pulumi.Output.from_input(existing.public_subnet_ids)
        self.private_subnet_ids = pulumi.Output.from_input(existing.private_subnet_ids)
        # Where load balancers go is true of a subnet for every cluster in it, so these tags stay on destroy.
        shared = pulumi.ResourceOptions(parent=self, retain_on_delete=True)
        # Karpenter takes these subnets by their ids: a tag for it has one value, and a second stack would overwrite it.
        self.ready = tuple(
            aws.ec2.Tag(
                f"{name}-{kind}-{zone}", resource_id=subnet, key=f"kubernetes.io/role/{role}", value="1", opts=shared
            )
            for kind, role, subnets in (
                ("public", "elb", existing.public_subnet_ids),
                ("private", "internal-elb", existing.private_subnet_ids),
            )
            for zone, subnet in zip(zones, subnets, strict=bool(subnets))
        )

    def _make(self, name: str, args: NetworkArgs) -> None:
        child = pulumi.ResourceOptions(parent=self)
        plan = args.plan

        vpc = aws.ec2.Vpc(
            f"{name}-vpc",
            cidr_block=plan.vpc_cidr,
            # Private DNS of interface endpoints and of the cluster's private API endpoint needs both.
            enable_dns_hostnames=True,
            enable_dns_support=True,
            tags={"Name": args.cluster_name},
            opts=child,
        )
        # Every VPC comes with a group that lets its members talk freely; adopted without rules, it lets nobody.
        aws.ec2.DefaultSecurityGroup(f"{name}-default-security-group", vpc_id=vpc.id, opts=child)
        gateway = aws.ec2.InternetGateway(
            f"{name}-internet-gateway", vpc_id=vpc.id, tags={"Name": args.cluster_name}, opts=child
        )

        public_subnets = [
            aws.ec2.Subnet(
                f"{name}-public-{zone}",
                vpc_id=vpc.id,
                availability_zone=zone,
                cidr_block=cidr,
                map_public_ip_on_launch=False,
                tags={"Name": f"{args.cluster_name}-public-{zone}", "kubernetes.io/role/elb": "1"},
                opts=child,
            )
            for zone, cidr in zip(plan.zones, plan.public_cidrs, strict=True)
        ]
        private_subnets = [
            aws.ec2.Subnet(
                f"{name}-private-{zone}",
                vpc_id=vpc.id,
                availability_zone=zone,
                cidr_block=cidr,
                map_public_ip_on_launch=False,
                tags={
                    "Name": f"{args.cluster_name}-private-{zone}",
                    "kubernetes.io/role/internal-elb": "1",
                    "karpenter.sh/discovery": args.cluster_name,
                },
                opts=child,
            )
            for zone, cidr in zip(plan.zones, plan.private_cidrs, strict=True)
        ]

        public_table = aws.ec2.RouteTable(
            f"{name}-public", vpc_id=vpc.id, tags={"Name": f"{args.cluster_name}-public"}, opts=child
        )
        public_route = aws.ec2.Route(
            f"{name}-public-internet",
            route_table_id=public_table.id,
            destination_cidr_block="0.0.0.0/0",
            gateway_id=gateway.id,
            opts=child,
        )
        public_associations = [
            aws.ec2.RouteTableAssociation(
                f"{name}-public-{zone}", route_table_id=public_table.id, subnet_id=subnet.id, opts=child
            )
            for zone, subnet in zip(plan.zones, public_subnets, strict=True)
        ]

        # An address and a gateway that leave after the internet gateway was detached hang until AWS gives up on them.
        behind_gateway = pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=[gateway]))
        nats: list[aws.ec2.NatGateway] = []
        for zone, subnet in list(zip(plan.zones, public_subnets, strict=True))[: plan.nat_gateways]:
            tags = {"Name": f"{args.cluster_name}-nat-{zone}"}
            address = aws.ec2.Eip(f"{name}-nat-{zone}", domain="vpc", tags=tags, opts=behind_gateway)
            nats.append(
                aws.ec2.NatGateway(
                    f"{name}-nat-{zone}",
                    allocation_id=address.id,
                    subnet_id=subnet.id,
                    tags=tags,
                    opts=behind_gateway,
                )
            )

        # One table for each zone also with a single gateway: moving to one gateway per zone then changes routes in
        # place instead of moving subnets from table to table.
        private_tables = [
            aws.ec2.RouteTable(
                f"{name}-private-{zone}",
                vpc_id=vpc.id,
                tags={"Name": f"{args.cluster_name}-private-{zone}"},
                opts=child,
            )
            for zone in plan.zones
        ]
        nat_of_zone = nats if len(nats) == len(plan.zones) else nats[:1] * len(plan.zones)
        private_routes = [
            aws.ec2.Route(
                f"{name}-private-{zone}-nat",
                route_table_id=table.id,
                destination_cidr_block="0.0.0.0/0",
                nat_gateway_id=nat.id,
                opts=child,
            )
            for zone, table, nat in zip(plan.zones, private_tables, nat_of_zone, strict=True)
        ]
        private_associations = [
            aws.ec2.RouteTableAssociation(
                f"{name}-private-{zone}", route_table_id=table.id, subnet_id=subnet.id, opts=child
            )
            for zone, table, subnet in zip(plan.zones, private_tables, private_subnets, strict=True)
        ]

        # Free, and keeps weights and image layers off the NAT gateway's meter. Its policy lets pods read any bucket
        # (ECR keeps layers in AWS's own) but write only to this account's: stolen data does not leave by this door.
        s3_endpoint = aws.ec2.VpcEndpoint(
            f"{name}-s3",
            vpc_id=vpc.id,
            service_name=f"com.amazonaws.{args.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[table.id for table in (public_table, *private_tables)],
            policy=iam.document("s3-gateway-endpoint.json"),
            tags={"Name": f"{args.cluster_name}-s3"},
            opts=child,
        )
        private_subnet_ids = [subnet.id for subnet in private_subnets]
        interface_endpoints = self._interface_endpoints(name, args, vpc, private_subnet_ids, child)

        self.vpc_id = vpc.id
        self.public_subnet_ids = pulumi.Output.all(*(subnet.id for subnet in public_subnets))
        self.private_subnet_ids = pulumi.Output.all(*private_subnet_ids)
        self.ready = (
            public_route,
            *public_associations,
            *nats,
            *private_routes,
            *private_associations,
            s3_endpoint,
            *interface_endpoints,
        )

    @staticmethod
    def _interface_endpoints(
        name: str,
        args: NetworkArgs,
        vpc: aws.ec2.Vpc,
        subnet_ids: Sequence[pulumi.Output[str]],
        child: pulumi.ResourceOptions,
    ) -> list[pulumi.Resource]:
        if not args.plan.interface_endpoints:
            return []
        group = aws.ec2.SecurityGroup(
            f"{name}-endpoints",
            vpc_id=vpc.id,
            description="Interface endpoints: HTTPS from inside the VPC",
            tags={"Name": f"{args.cluster_name}-endpoints"},
            opts=child,
        )
        rule = aws.vpc.SecurityGroupIngressRule(
            f"{name}-endpoints-https",
            security_group_id=group.id,
            cidr_ipv4=args.plan.vpc_cidr,
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            opts=child,
        )
        endpoints = [
            aws.ec2.VpcEndpoint(
                f"{name}-{service.replace('.', '-')}",
                vpc_id=vpc.id,
                service_name=f"com.amazonaws.{args.region}.{service}",
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=list(subnet_ids),
                security_group_ids=[group.id],
                tags={"Name": f"{args.cluster_name}-{service}"},
                opts=child,
            )
            for service in args.plan.interface_endpoints
        ]
        return [rule, *endpoints]
