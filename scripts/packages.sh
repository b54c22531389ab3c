# Defines `install_missing COMMAND:PACKAGE…`, which installs the Debian packages whose command is not there; a pair without a
# command is one that the caller found missing. Sourced. Set DKV_NO_INSTALL=1 to install nothing and fail where something
# is missing.
install_missing() {
  local pair need=()
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || need+=("${pair##*:}")
  done
  [ "${#need[@]}" -gt 0 ] || return 0
  if [ -n "${DKV_NO_INSTALL:-}" ]; then
    echo "missing: ${need[*]} (apt-get install ${need[*]})" >&2
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  # A package must not start a server of its own on this machine.
  local policy=/usr/sbin/policy-rc.d made= failed=
  [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; made=1; }
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null; } || failed=1
  [ -z "$made" ] || rm -f "$policy"
  [ -z "$failed" ] || exit 1
}
