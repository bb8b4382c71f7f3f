"""As many resources as the real program has, of the kinds it has: to measure the engine."""

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

cloud = aws.Provider("aws", region="us-east-2")
vpc = aws.ec2.Vpc("vpc", cidr_block="10.0.0.0/16", opts=pulumi.ResourceOptions(provider=cloud))
cluster = k8s.Provider("kubernetes", kubeconfig=vpc.arn)
on_aws = pulumi.ResourceOptions(provider=cloud)
on_cluster = pulumi.ResourceOptions(provider=cluster)
for number in range(60):
    aws.ec2.Subnet(f"subnet-{number}", vpc_id=vpc.id, cidr_block=f"10.0.{number}.0/24", opts=on_aws)
    queue = aws.sqs.Queue(f"queue-{number}", opts=on_aws)
    labels = {"app": f"server-{number}"}
    k8s.apps.v1.Deployment(
        f"server-{number}",
        metadata=k8s.meta.v1.ObjectMetaArgs(name=f"server-{number}", namespace="apps", labels=labels),
        spec=k8s.apps.v1.DeploymentSpecArgs(
            selector=k8s.meta.v1.LabelSelectorArgs(match_labels=labels),
            template=k8s.core.v1.PodTemplateSpecArgs(
                metadata=k8s.meta.v1.ObjectMetaArgs(labels=labels),
                spec=k8s.core.v1.PodSpecArgs(
                    containers=[
                        k8s.core.v1.ContainerArgs(
                            name="server",
                            image="registry.example.org/server:1",
                            env=[k8s.core.v1.EnvVarArgs(name="QUEUE", value=queue.url)],
                            ports=[k8s.core.v1.ContainerPortArgs(container_port=8000)],
                        )
                    ]
                ),
            ),
        ),
        opts=on_cluster,
    )
    k8s.apiextensions.CustomResource(
        f"pool-{number}",
        api_version="karpenter.sh/v1",
        kind="NodePool",
        metadata={"name": f"pool-{number}"},
        spec={"weight": number, "template": {"metadata": {"labels": labels}}},
        opts=on_cluster,
    )
