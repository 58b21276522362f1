#! /bin/sh
# sshd moves to 22022 first
sed -i 's/^#*Port .*/Port 22022/' /etc/ssh/sshd_config
systemctl restart ssh
apt-get update && apt-get install -y ufw
ufw allow 22022/tcp
ufw --force enable
