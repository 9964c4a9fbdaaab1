#!/bin/sh
# Makes this machine trust the CA of the Entrepot at @box@, which signs for container registries only.
#
#   sh install.sh [--yes] [--dry-run] [--undo] [--root DIR]
#
#   --yes       do not ask
#   --dry-run   show what would be done
#   --undo      take the CA out again
#   --root DIR  work on the system whose files are in DIR, and run nothing of it
#
# May be run again and again. It changes the system's store of certificates and nothing else.
set -eu

ours='@ours@'
known='@known@'

certificate() {
  case $1 in
@certificates@
  esac
}

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }

# In a function, so that a script that has come half-way does nothing.
main() {
  yes= dry= undo= root=
  while [ $# -gt 0 ]; do
    case $1 in
      --yes | -y) yes=1 ;;
      --dry-run) dry=1 ;;
      --undo) undo=1 ;;
      --root) [ $# -gt 1 ] || fail '--root needs a folder'; shift; root=${1%/} ;;
      --root=*) root=${1#--root=}; root=${root%/} ;;
      *) printf 'install.sh: unknown option %s\n' "$1" >&2; exit 2 ;;
    esac
    shift
  done
  [ -z "$root" ] || [ -d "$root" ] || fail "$root is no folder"

  # Which system this is: the first of its names that is known, from os-release(5).
  value() { sed -n "s/^$1=//p" "$release" | tr -d "\"'" | head -n 1; }
  release=
  for file in /etc/os-release /usr/lib/os-release; do
    if [ -z "$release" ] && [ -r "$root$file" ]; then release=$root$file; fi
  done
  anchors=
  if [ -n "$release" ]; then
    for system in $(value ID) $(value ID_LIKE); do
      [ -z "$anchors" ] || break
      case $system in
@stores@
      esac
    done
  fi
  [ -n "$anchors" ] || fail 'this system is not known; put http://@box@/ca.crt into its store of certificates by hand'

  folder=$root$anchors
  # What is to be done, said; and done, unless it is only to be shown.
  write() {
    say "write $folder/$1.crt"
    [ -z "$dry" ] || return 0
    mkdir -p "$folder"
    certificate "$1" > "$folder/.$1.new"
    chmod 644 "$folder/.$1.new"
    mv "$folder/.$1.new" "$folder/$1.crt"
  }
  remove() {
    say "remove $folder/$1.crt"
    [ -z "$dry" ] || return 0
    rm -f "$folder/$1.crt"
    # Debian's command leaves the links to a file that is gone where they are.
    for link in "$root/etc/ssl/certs/$1.pem" "$root/etc/ssl/certs/ca-cert-$1.pem"; do
      if [ -L "$link" ]; then rm -f "$link"; fi
    done
    for link in "$root"/etc/ssl/certs/*.[0-9]; do
      if [ -L "$link" ] && [ ! -e "$link" ]; then
        case $(readlink "$link") in "$1.pem" | "ca-cert-$1.pem") rm -f "$link" ;; esac
      fi
    done
  }
  needed() {
    if [ -n "$undo" ]; then
      for name in $known; do [ ! -e "$folder/$name.crt" ] || printf '%s ' "$name"; done
    else
      for name in $ours; do
        [ -r "$folder/$name.crt" ] && certificate "$name" | cmp -s - "$folder/$name.crt" || printf '%s ' "$name"
      done
    fi
  }

  todo=$(needed)
  if [ -z "$todo" ]; then
    if [ -n "$undo" ]; then say 'nothing to do: the CA is not in the store'; else say 'nothing to do: the CA is in the store'; fi
    exit 0
  fi

  if [ -z "$undo" ]; then
    say 'Entrepot CA of @box@'
    say '@fingerprints@'
    say 'Compare with what `entrepot ca show` says on the box: this came over a connection that nobody vouches for.'
  fi
  if [ -z "$root$dry" ] && [ "$(id -u)" -ne 0 ]; then
    fail 'the store of certificates is root'"'"'s: run this as root (... | sudo sh)'
  fi
  if [ -z "$root$dry" ] && ! command -v "${command%% *}" > /dev/null 2>&1; then
    fail "there is no ${command%% *}: install $package and run this again"
  fi
  if [ -z "$yes$dry$undo" ]; then
    # Standard input may be this script.
    if ! (exec < /dev/tty) 2> /dev/null; then fail 'nobody to ask: add --yes (... | sh -s -- --yes)'; fi
    printf 'Trust it? [y/N] '
    read -r answer < /dev/tty || answer=
    case $answer in [yY] | [yY][eE][sS]) ;; *) fail 'nothing was changed' ;; esac
  fi

  for name in $todo; do
    if [ -n "$undo" ]; then remove "$name"; else write "$name"; fi
  done

  if [ -n "$root" ]; then
    say "run \`$command\` in the system in $root"
  elif [ -n "$dry" ]; then
    say "run $command"
  else
    say "run $command"
    if ! $command > /dev/null; then
      # So that another run does not take the work for done.
      [ -n "$undo" ] || for name in $todo; do rm -f "$folder/$name.crt"; done
      fail "$command has failed; see above"
    fi
  fi

  # These read the store once. podman, skopeo, buildah, ctr and crane read it at each run.
  say 'restart those of dockerd, containerd, buildkitd, crio and kubelet that run here: they read the store at their start'
  if [ -z "$root$dry" ] && [ -d /proc/1 ]; then
    for daemon in dockerd containerd buildkitd crio; do
      if cat /proc/[0-9]*/comm 2> /dev/null | grep -qx "$daemon"; then
        say "  runs here: $daemon"
      fi
    done
  fi
  [ -n "$undo" ] || say 'not in this store: Java (keytool), Node.js (NODE_EXTRA_CA_CERTS), Python requests (REQUESTS_CA_BUNDLE)'
}

main "$@"
