"""Objects that another machine carries, reached through its Kubernetes API: a box with `serve`, or a tenant of Hikube."""

NAME = "remote"
