"""The stack on one page: settings -> plan -> components -> outputs."""

import pulumi
import pulumi_aws as aws
import pulumi_eks as eks

from components import names, options
from components.budget_alarm import BudgetAlarm, BudgetAlarmArgs
from components.cluster import Cluster, ClusterArgs
from components.controllers import Controllers, ControllersArgs
from components.karpenter import Karpenter, KarpenterArgs
from components.model_router import ModelRouter, ModelRouterArgs
from components.model_weights import ModelWeights, ModelWeightsArgs
from components.network import Network, NetworkArgs
from components.node_pool import ServingNodePool, ServingNodePoolArgs
from components.observability import Observability, ObservabilityArgs
from components.served_tier import ServedTier, ServedTierArgs
from components.serving_namespace import ServingNamespace, ServingNamespaceArgs
from components.tier_ingress import TierIngress, TierIngressArgs
from configuration import planned_stack
from planning.outputs import plan_outputs

settings, plan, secrets = planned_stack()
region, watched, tags = plan.region, settings.observability, names.stack_tags(pulumi.get_stack(), settings.tags)
cluster_name = f"{names.PROJECT}-{pulumi.get_stack()}"

# fmt: off
in_aws = pulumi.ResourceOptions(providers=[eks.Provider("eks"), aws.Provider("aws", region=region,
    allowed_account_ids=settings.access.allowed_account_ids, default_tags=aws.ProviderDefaultTagsArgs(tags=tags))])
network = Network("network", NetworkArgs(plan=plan.network, region=region, cluster_name=cluster_name), in_aws)
cluster = Cluster("cluster", ClusterArgs(
    cluster_name=cluster_name, region=region, plan=plan.cluster, system_nodes=plan.system_nodes, vpc_id=network.vpc_id,
    private_subnet_ids=network.private_subnet_ids, network_ready=network.ready,
    api_endpoint_cidrs=settings.network.api_endpoint_cidrs, admin_role_arns=settings.access.admin_role_arns,
    control_plane_logs=watched.control_plane_logs, log_retention_days=watched.log_retention_days, tags=tags), in_aws)

in_cluster = pulumi.ResourceOptions.merge(in_aws, pulumi.ResourceOptions(providers=[cluster.provider]))
observability = Observability("observability", ObservabilityArgs(tiers=plan.tiers, forecast=plan.forecast,
    by_model=plan.model_router is not None, storage_class=cluster.storage_class,
    storage_gib=watched.storage_gib, retention_days=watched.retention_days,
    grafana=watched.grafana, alertmanager_url=watched.alertmanager_url, system_ready=cluster.system_ready), in_cluster)
controllers = Controllers("controllers", ControllersArgs(
    cluster_name=cluster.name, region=region, vpc_id=network.vpc_id, tags=tags, system_ready=cluster.system_ready,
    gpu_nodes=any(pool.gpu_count for pool in plan.node_pools), prometheus=observability.release, efa=plan.uses_efa,
    device_plugin=not plan.node_image.brings_device_plugin, web_acl_arn=settings.network.web_acl_arn), in_cluster)
karpenter = Karpenter("karpenter", KarpenterArgs(cluster_name=cluster.name, region=region,
    node_role_arn=plan.cluster.node_role_arn, system_ready=cluster.system_ready), in_cluster)
pools = {pool.name: ServingNodePool(f"pool-{pool.name}", ServingNodePoolArgs(
    pool=pool, network=plan.network, cluster_name=cluster_name, node_role_name=karpenter.node_role_name, tags=tags,
    image=plan.node_image, image_label=plan.node_image_label),
    options.after(in_cluster, karpenter.controller, karpenter.crds)) for pool in plan.node_pools}

serving = ServingNamespace("serving", ServingNamespaceArgs(
    kubernetes_version=plan.cluster.kubernetes_version, hugging_face_token=secrets.hugging_face_token,
    api_key=secrets.api_key), options.after(in_cluster, *cluster.system_ready))
weights = ModelWeights("weights", ModelWeightsArgs(
    tiers=plan.tiers, cluster_name=cluster.name, region=region, namespace=serving.namespace,
    hugging_face_token=serving.has_hugging_face_token), options.after(in_cluster, *serving.ready))
tiers = [ServedTier(tier.name, ServedTierArgs(
    tier=tier, schedule=plan.schedule, region=region, node_image_label=plan.node_image_label,
    vpc_cidr=plan.network.vpc_cidr, namespace=serving.namespace, api_key=serving.has_api_key, keda=controllers.keda,
    bucket=weights.bucket_name, prometheus=observability.release, prometheus_url=observability.prometheus_url),
    options.after(in_cluster, pools[tier.node_pool], weights, observability.release)) for tier in plan.tiers]
model_router = ModelRouter("front-envoy", ModelRouterArgs(
    plan=plan.model_router, tiers=plan.tiers, namespace=serving.namespace, vpc_cidr=plan.network.vpc_cidr,
    served=tiers, prometheus=observability.release), in_cluster) if plan.model_router else None
ingress = TierIngress("ingress", TierIngressArgs(
    tiers=plan.tiers, default_tier=plan.default_tier, routing_header=plan.routing_header, served=tiers,
    scheme=settings.network.ingress_scheme, certificate_arn=settings.network.certificate_arn, oidc=plan.network.oidc,
    host=settings.network.host, web_acl_arn=settings.network.web_acl_arn, namespace=serving.namespace,
    model_router=model_router, load_balancer_controller=controllers.load_balancer_controller), in_cluster)
if settings.budget.monthly_usd:
    BudgetAlarm("budget", BudgetAlarmArgs(
        monthly_usd=settings.budget.monthly_usd, notify=settings.budget.notify,
        tag_key=names.STACK_TAG, tag_value=tags[names.STACK_TAG]), in_aws)
# fmt: on

for name, value in {**plan_outputs(plan), "endpoint": ingress.endpoint, "clusterName": cluster.name}.items():
    pulumi.export(name, value)
pulumi.export("kubeconfig", pulumi.Output.secret(cluster.kubeconfig))
