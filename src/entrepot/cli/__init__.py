"""The command line, and the supervisor that runs the processes.

- `main`        the group of commands, each imported when it is used; one line and an exit code for every failure
- `up`          the order of a start: configuration, folders, ports, processes, CA; `banner` is what it prints
- `supervisor`  the life of the processes (`processes`: one of them): ready, dead, restarted, reloaded, drained
- `children`    the entry of a child; `proxy_child` and `dns_child` are what they run, `brief` is what they are told
- `ports`       which sockets are bound, and what is said when one cannot be; `holders` finds who is in the way
- `places`      the folders, and where they are when /var/lib is not ours
- `addresses`   of this box; `probe` is the health check; `notify` tells systemd; `logs` formats
- `stats`, `images`, `config`, `completion`, `ca`  commands

What it does not do: anything a command does, which is in the other rooms. Rules:

1. `up` starts its children before it imports what only it needs: a start is paid for in seconds by whoever waits.
2. A child is told everything on its standard input and is given its sockets; it opens none and reads no configuration.
3. An expected failure is one line on stderr and exit code 1 (2 for a wrong command line); a traceback is a bug.
4. No process outlives the supervisor, however that ends.
"""
