"""The metrics that exist, each with where its name was read. A name that is not here shows nothing, silently."""

from __future__ import annotations

VLLM = {
    # vLLM 0.33.0 (wheel built 2026-11-01), vllm/v1/metrics/loggers.py; counters end in _total when scraped.
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:num_preemptions_total",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:inter_token_latency_seconds_bucket",
    "vllm:request_time_per_output_token_seconds_bucket",
    "vllm:request_queue_time_seconds_bucket",
    "vllm:e2e_request_latency_seconds_bucket",
}
REMOVED_FROM_VLLM = {
    # The same file no longer has them; many dashboards still do.
    "vllm:gpu_cache_usage_perc",
    "vllm:time_per_output_token_seconds_bucket",
    "vllm:num_requests_swapped",
    "vllm:gpu_prefix_cache_hits_total",
    "vllm:gpu_prefix_cache_queries_total",
}
LLAMA_CPP = {
    # ggml-org/llama.cpp, tools/server README, section GET /metrics.
    "llamacpp:prompt_tokens_total",
    "llamacpp:tokens_predicted_total",
    "llamacpp:requests_processing",
    "llamacpp:requests_deferred",
}
ENDPOINT_PICKER = {
    # llm-d/llm-d-router ebab687 (2026-08-22), docs/metrics.md; most seen on its /metrics.
    "llm_d_epp_flow_control_queue_size",
    "llm_d_epp_flow_control_requests_total",
    "llm_d_epp_flow_control_stale_endpoints",
    "llm_d_epp_ready_endpoints",
    "llm_d_epp_request_running",
    "llm_d_epp_request_total",
    "llm_d_epp_request_error_total",
    "llm_d_epp_request_ttft_seconds_bucket",
}
ENVOY = {
    # Envoy's own /stats/prometheus; looked for there in test_model_router_config.py
    "envoy_cluster_upstream_rq_total",
    "envoy_http_downstream_rq_xx",
    "envoy_http_downstream_rq_active",
    "envoy_overload_envoy_resource_monitors_fixed_heap_pressure",
}
KEDA = {
    # kedacore/keda 2.20.2, pkg/metricscollector/prommetrics.go
    "keda_build_info",
    "keda_scaler_detail_errors_total",
}
PROMETHEUS = {
    # prometheus/prometheus: prometheus/common's version collector, tsdb/db.go, rules/manager.go; looked for on a
    # server's own /metrics in tests/cluster/test_dashboard.py
    "prometheus_build_info",
    "prometheus_tsdb_size_retentions_total",
    "prometheus_rule_evaluation_failures_total",
}
OTHERS = {
    "up",  # Prometheus itself
    # kubernetes/kube-state-metrics, docs/metrics/cluster/node-metrics.md; labels only as --metric-labels-allowlist says
    "kube_node_labels",
    # kubernetes/kube-state-metrics, docs/metrics/workload/pod-metrics.md; a GPU is the resource nvidia_com_gpu
    "kube_pod_labels",
    "kube_pod_container_resource_requests",
    "kube_pod_status_phase",
    # kubernetes/kubernetes, pkg/kubelet/metrics/collectors/volume_stats.go
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
    # kubernetes/kube-state-metrics, docs/metrics/workload/deployment-metrics.md
    "kube_deployment_spec_replicas",
    "kube_deployment_status_replicas_ready",
    "DCGM_FI_DEV_GPU_UTIL",  # NVIDIA/dcgm-exporter, etc/default-counters.csv
}
EXISTING = VLLM | LLAMA_CPP | ENDPOINT_PICKER | ENVOY | KEDA | PROMETHEUS | OTHERS
