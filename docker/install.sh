#!/bin/sh
# Installs arborcast's dependencies, or the package itself, into a virtual environment; run while an image is built.
#   install.sh dependencies VENV
#   install.sh package VENV [DEPENDENCY_THAT_IS_NOT_NEEDED ...]
set -eu
what=$1 venv=$2
shift 2
certificates=/tmp/certificates.pem
if ls ca/*.crt >/dev/null 2>&1; then
  cat /etc/ssl/certs/ca-certificates.crt ca/*.crt >"$certificates" 2>/dev/null || cat ca/*.crt >"$certificates"
  export PIP_CERT=$certificates
fi
[ -n "${PIP_INDEX_URL:-}" ] || unset PIP_INDEX_URL
case $what in
dependencies)
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --require-hashes -r requirements.lock
  ;;
package)
  "$venv/bin/pip" install --quiet --no-deps --no-build-isolation .
  # What built it is not needed to run it.
  "$venv/bin/pip" uninstall --quiet --yes setuptools "$@" pip
  find "$venv" -depth -type d \( -name tests -o -name test \) -path '*/site-packages/*' -exec rm -rf {} +
  ;;
esac
rm -f "$certificates"
