# Installs what the tests and the benchmarks need: Debian packages and one Python environment. Sourced from the root of the
# project. Set DKV_NO_INSTALL=1 to install nothing and fail where something is missing.
need=()
for pair in cc:build-essential ip:iproute2 nft:nftables redis-cli:redis-tools redis-server:redis-server curl:curl python3:python3; do
  command -v "${pair%%:*}" >/dev/null 2>&1 || need+=("${pair##*:}")
done
/usr/bin/python3 -c 'import ensurepip' 2>/dev/null || python3 -c 'import ensurepip' 2>/dev/null || need+=(python3-venv)
if [ "${#need[@]}" -gt 0 ]; then
  if [ -n "${DKV_NO_INSTALL:-}" ]; then
    echo "missing: ${need[*]} (apt-get install ${need[*]})" >&2
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  # A package must not start a server of its own on this machine.
  policy=/usr/sbin/policy-rc.d
  made=
  [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; made=1; }
  apt-get update -qq && apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
  [ -z "$made" ] || rm -f "$policy"
fi
# One Python environment for the client packages, made anew when their list changes.
venv=target/test-python
if ! cmp -s tests/clients/requirements.txt "$venv/requirements.txt"; then
  rm -rf "$venv"
  mkdir -p target
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
  cp tests/clients/requirements.txt "$venv/requirements.txt"
fi
