#cloud-boothook
#!/bin/bash
cloud-init-per once docker_opts sh -c 'mkdir -p /etc/docker && echo "{}" > /etc/docker/daemon.json'
