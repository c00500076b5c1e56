#!/bin/sh
# Stops what runs before its program goes. deb calls it with "remove" or "upgrade", rpm with the
# number of versions that stay.
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl disable --now edgewalk-edgeagent.socket edgewalk-edgeagent-tls.socket \
		edgewalk-edgeagent.service edgewalk-controlplane.service
fi
