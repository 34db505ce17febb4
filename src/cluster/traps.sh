child= stopped=
stop() { stopped=$1; if [ -n "$child" ]; then kill -"${asks:-TERM}" "$child" 2>/dev/null; fi; }
trap 'stop USR1' USR1
trap 'stop TERM' TERM
