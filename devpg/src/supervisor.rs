//! The small shell script between this process and PostgreSQL. It holds the reading end of a pipe whose writing end is ours
//! alone: when we end, however we end, the kernel closes it, and the script stops the server.

use std::{
    fs::File,
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::Duration,
};

use crate::{Error, process};

/// The time that the script gives a server to stop, all steps together, and some more.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(40);

/// `$1` is a directory to remove when the server has ended because we did, or is empty; the rest is the server's command line.
///
/// The one process waits for the server, so that it is reaped; the other reads the pipe. The word `stop` means a stop that
/// may be followed by another start: nothing is removed. The end of the pipe without that word means that nobody needs the
/// server again. Fast shutdown first, immediate after 20 s, and after 10 s more there is nothing to be polite about.
const SCRIPT: &str = r#"
exec 3<&0 </dev/null
discard=$1
shift
"$@" 3<&- &
server=$!
(
    word=
    read -r word <&3
    # From here on the shell that waits for the server must not end this one.
    trap '' TERM
    signal=INT
    if [ "$word" = stop ]; then discard=; fi
    if [ -n "$discard" ]; then signal=QUIT; fi
    tries=0
    while kill -s 0 "$server"; do
        if [ "$tries" -eq 400 ]; then signal=QUIT; fi
        if [ "$tries" -eq 600 ]; then signal=KILL; fi
        # Said again each second: a server that has only just begun does not listen yet.
        if [ $((tries % 20)) -eq 0 ]; then kill -s "$signal" "$server"; fi
        sleep 0.05 || sleep 1
        tries=$((tries + 1))
    done
    if [ -n "$discard" ]; then cd / && rm -rf -- "$discard"; fi
) 2>/dev/null &
reader=$!
exec 3<&-
wait "$server"
status=$?
kill -s TERM "$reader" 2>/dev/null
wait "$reader" 2>/dev/null
exit "$status"
"#;

#[derive(Debug)]
pub(crate) struct Supervisor {
    script: Child,
    /// `None` once it was told to stop.
    pipe: Option<ChildStdin>,
}

impl Supervisor {
    /// `command` is a shell without arguments, prepared to run as the right user; `server` is what it is to run.
    pub(crate) fn start(
        mut command: Command,
        server: &[std::ffi::OsString],
        discard: Option<&Path>,
        log: File,
    ) -> Result<Self, Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |source| Error::Spawn {
            program: program.clone(),
            source,
        };
        let stderr = log.try_clone().map_err(failed)?;
        // A process group of its own: the terminal's Ctrl-C is for us, and we stop the server when we are ready to.
        let mut script = command
            .arg("-c")
            .arg(SCRIPT)
            .arg("devpg-supervisor")
            .arg(discard.unwrap_or(Path::new("")))
            .args(server)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(stderr)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let pipe = script.stdin.take();
        Ok(Self { script, pipe })
    }

    /// How the server ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.script.try_wait().ok().flatten()
    }

    /// Tells it to stop the server and to keep everything.
    pub(crate) fn stop(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            // If nobody reads any more, there is nobody left to stop.
            let _ = pipe.write_all(b"stop\n");
        }
    }

    /// Lets go of it, as the end of this process would.
    pub(crate) fn let_go(&mut self) {
        self.pipe = None;
    }

    pub(crate) fn wait(&mut self, limit: Duration) -> bool {
        process::wait(&mut self.script, limit).is_some()
    }
}
