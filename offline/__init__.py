"""Run the Pulumi program without an account, a cluster or the Pulumi CLI, and look at what it would create.

``engine`` runs the very same ``__main__.py`` in Pulumi's SDK against a recording monitor; ``recording`` is what comes
out; ``preview`` prints it and ``manifests`` writes its Kubernetes objects and Helm values as files.
"""
