#!/bin/sh
# Makes the secrets that compose.yaml names, once: tokens of admins and edges, and the key of what
# is sealed in etcd. Keep a copy of secret-key with your backups.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets
for name in admin-tokens edge-tokens; do
	[ -e secrets/$name ] || head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >secrets/$name
done
[ -e secrets/secret-key ] ||
	printf 'edgewalk-key-1:%s\n' "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n')" >secrets/secret-key
# The containers run as user 65532.
chmod 0444 secrets/*
echo "secrets are in $PWD/secrets; now: docker compose -f $PWD/compose.yaml up -d"
