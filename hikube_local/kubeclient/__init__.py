"""A client of Kubernetes' API: kubeconfig, login, requests, watches, websockets. It knows no kind of ours."""
