//! One process at a time: a lock file that names its holder. The kernel releases it with the process, however that ends.

use std::{
    fs::{self, File, TryLockError},
    io::{Seek, Write},
    path::Path,
    time::Duration,
};

use crate::{Error, account::Account, process};

/// Held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock up to `limit`; `subject` is what the error says is in use.
    pub(crate) fn take(
        path: &Path,
        subject: &Path,
        account: Account,
        limit: Duration,
    ) -> Result<Self, Error> {
        // Not truncated on opening: until it is locked, the content is the holder's.
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io("open", path))?;
        let mut failure = None;
        let taken = process::wait_until(limit, || match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => {
                failure = Some(error);
                true
            }
        });
        if let Some(error) = failure {
            return Err(Error::io("lock", path)(error));
        }
        if !taken {
            let holder = fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned();
            return Err(Error::InUse {
                path: subject.to_owned(),
                holder,
            });
        }
        account.own(path)?;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(Error::io("write", path))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_learns_who_holds_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lock");
        let take = || Lock::take(&path, dir.path(), Account::Own, Duration::from_millis(30));
        let first = take().expect("the lock");
        let error = take().expect_err("taken twice").to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(first);
        take().expect("released");
    }
}
