# Installs what the tests and the benchmarks need: Debian packages, one Python environment and the clients of Node.js. Sourced
# from the root of the project. Set DKV_NO_INSTALL=1 to install nothing and fail where something is missing.
. scripts/packages.sh
needed=(cc:build-essential ip:iproute2 nft:nftables redis-cli:redis-tools redis-server:redis-server curl:curl python3:python3
  node:nodejs npm:npm prometheus-redis-exporter:prometheus-redis-exporter chromium:chromium chromedriver:chromium-driver)
# Chromium draws no text without a font.
[ -n "$(find /usr/share/fonts -name '*.ttf' -print -quit 2>/dev/null)" ] || needed+=(:fonts-dejavu-core)
/usr/bin/python3 -c 'import ensurepip' 2>/dev/null || python3 -c 'import ensurepip' 2>/dev/null || needed+=(:python3-venv)
install_missing "${needed[@]}"
# One Python environment for the client packages, made anew when their list changes.
venv=target/test-python
if ! cmp -s tests/clients/requirements.txt "$venv/requirements.txt"; then
  rm -rf "$venv"
  mkdir -p target
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
  cp tests/clients/requirements.txt "$venv/requirements.txt"
fi
# The clients of Node.js, as the lock file names them; none of them runs a script when it is installed.
modules=target/test-node
if ! cmp -s tests/clients/package-lock.json "$modules/package-lock.json"; then
  rm -rf "$modules"
  mkdir -p "$modules.new"
  cp tests/clients/package.json tests/clients/package-lock.json "$modules.new/"
  npm ci --prefix "$modules.new" --ignore-scripts --no-audit --no-fund --silent
  mv "$modules.new" "$modules"
fi
