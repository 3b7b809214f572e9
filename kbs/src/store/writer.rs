//! The release log's one writer: every decision, before its answer is sent, each entry chained to the one before it.
//!
//! `hash` is SHA-256 over the canonical JSON (RFC 8785) of all other columns but `mac`, so anybody can follow the chain;
//! `mac` is HMAC-SHA256 of `hash` under a key of this store, so nobody else can write a chain anew. A checkpoint signs
//! how long the log is and what it holds; kept elsewhere, it also shows a tail that was cut off.
//!
//! What waits while the disk is busy goes into one transaction: the more come at once, the less each one waits.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};
use tokio::time::Instant;

use super::audit;
use super::chain::{GENESIS, Head, append, catch_up, sign};
use super::change::SealedChange;
use super::entry::Entry;
use super::keys::LogKeys;
use super::tree::Tree;
use super::{Checkpoints, StoreError, file_error};

/// Jobs in one transaction. More than decisions run at a time is never waiting.
const BATCH: usize = 256;
/// With nothing to sign there is nothing to wake up for.
const IDLE: Duration = Duration::from_secs(3600);

/// Entries and the change they tell of: all in one transaction, or none.
pub(super) struct Job {
    pub(super) entries: Vec<Entry>,
    pub(super) change: Option<SealedChange>,
}

enum Message {
    Commit(Job, SyncSender<Result<(), StoreError>>),
    Checkpoint(SyncSender<Result<(), StoreError>>),
}

pub(super) struct Writer {
    /// None once dropped: the thread ends when nobody can send.
    messages: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Reads the log's hashes and holds them against the newest checkpoints: ours in the database, and the file's.
    ///
    /// # Errors
    /// The log does not begin with what a checkpoint signed, or SQLite's.
    pub(super) fn start(
        connection: Connection,
        keys: Arc<LogKeys>,
        checkpoints: Checkpoints,
    ) -> Result<Self, StoreError> {
        let log = Log::open(connection, keys, checkpoints)?;
        let (messages, received) = sync_channel(BATCH);
        let thread = std::thread::Builder::new()
            .name("release-log".to_owned())
            .spawn(move || log.run(&received))
            .map_err(|source| file_error(Path::new("release log's thread"), source))?;
        Ok(Self {
            messages: Some(messages),
            thread: Some(thread),
        })
    }

    /// Waits for the disk.
    pub(super) fn commit(&self, job: Job) -> Result<(), StoreError> {
        self.ask(|reply| Message::Commit(job, reply))
    }

    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        self.ask(Message::Checkpoint)
    }

    fn ask(
        &self,
        message: impl FnOnce(SyncSender<Result<(), StoreError>>) -> Message,
    ) -> Result<(), StoreError> {
        let gone = || StoreError::NotWritten("the writer has stopped".to_owned());
        let (reply, answer) = sync_channel(1);
        let messages = self.messages.as_ref().ok_or_else(gone)?;
        messages.send(message(reply)).map_err(|_gone| gone())?;
        answer.recv().map_err(|_gone| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.messages.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

struct Log {
    connection: Connection,
    keys: Arc<LogKeys>,
    checkpoints: Checkpoints,
    head: Head,
    /// When what has no checkpoint yet gets one.
    due: Option<Instant>,
}

impl Log {
    fn open(
        connection: Connection,
        keys: Arc<LogKeys>,
        checkpoints: Checkpoints,
    ) -> Result<Self, StoreError> {
        let mut expected = audit::Expected::default();
        let public = keys.signer.public();
        let newest: Option<String> = connection
            .query_row(
                "SELECT note FROM log_checkpoint ORDER BY size DESC LIMIT 1",
                (),
                |row| row.get(0),
            )
            .optional()?;
        if let Some(note) = newest {
            expected.add(audit::open_note("in the database", &note, public)?);
        }
        if let Some(note) = audit::read_note(&checkpoints.file)? {
            let name = checkpoints.file.display().to_string();
            expected.add(audit::open_note(&name, &note, public)?);
        }
        let mut log = Self {
            connection,
            keys,
            checkpoints,
            head: Head {
                hash: GENESIS.to_owned(),
                tree: Tree::default(),
                signed: None,
            },
            due: None,
        };
        expected.check(&log.head.tree)?;
        let transaction = log.connection.transaction()?;
        catch_up(&transaction, &mut log.head, |tree| expected.check(tree))?;
        drop(transaction);
        expected.finish(log.head.tree.size())?;
        Ok(log)
    }

    fn run(mut self, messages: &Receiver<Message>) {
        loop {
            let wait = self.due.map_or(IDLE, |due| due - Instant::now());
            let mut next = match messages.recv_timeout(wait) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => {
                    self.sign_or_say();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return self.sign_or_say(),
            };
            let mut batch = Vec::new();
            while let Some(message) = next.take() {
                match message {
                    Message::Commit(job, reply) => batch.push((job, reply)),
                    Message::Checkpoint(reply) => {
                        self.commit(std::mem::take(&mut batch));
                        let _gone = reply.send(self.sign());
                    }
                }
                if batch.len() < BATCH {
                    next = messages.try_recv().ok();
                }
            }
            self.commit(batch);
        }
    }

    fn commit(&mut self, batch: Vec<(Job, SyncSender<Result<(), StoreError>>)>) {
        if batch.is_empty() {
            return;
        }
        let mut answers = Vec::with_capacity(batch.len());
        let committed = self.write(batch.iter().map(|(job, _)| job), &mut answers);
        let failed = committed.err().map(|error| error.to_string());
        let mut answers = answers.into_iter();
        for (_, reply) in batch {
            let answer = match &failed {
                Some(error) => Err(StoreError::NotWritten(error.clone())),
                None => answers.next().unwrap_or(Ok(())),
            };
            // Whoever asked has given up waiting; the entry stands.
            let _gone = reply.send(answer);
        }
    }

    /// One transaction. A change that cannot be made takes its entry with it, and nobody else's.
    fn write<'a>(
        &mut self,
        jobs: impl Iterator<Item = &'a Job>,
        answers: &mut Vec<Result<(), StoreError>>,
    ) -> Result<(), StoreError> {
        let mut head = self.head.clone();
        let mut transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        catch_up(&transaction, &mut head, |_| Ok(()))?;
        for job in jobs {
            let Some(change) = &job.change else {
                append(&transaction, &self.keys.mac, &mut head, &job.entries)?;
                answers.push(Ok(()));
                continue;
            };
            let savepoint = transaction.savepoint()?;
            match change.apply(&savepoint) {
                Ok(()) => {
                    append(&savepoint, &self.keys.mac, &mut head, &job.entries)?;
                    savepoint.commit()?;
                    answers.push(Ok(()));
                }
                Err(error @ StoreError::Sqlite(_)) => return Err(error),
                Err(error) => {
                    drop(savepoint); // rolls back
                    answers.push(Err(error));
                }
            }
        }
        let size = head.tree.size();
        let unsigned = head.signed.map(|signed| size.saturating_sub(signed));
        let note = match unsigned {
            Some(waiting) if waiting < self.checkpoints.entries => None,
            _ => Some(sign(&transaction, &self.keys, &mut head)?),
        };
        transaction.commit()?;
        self.head = head;
        self.settle(note);
        Ok(())
    }

    /// After the transaction: when the next checkpoint is due, and this one into its file.
    fn settle(&mut self, note: Option<String>) {
        let Some(note) = note else {
            let waiting = self.head.signed != Some(self.head.tree.size());
            let age = self.checkpoints.age;
            self.due = waiting.then(|| self.due.unwrap_or_else(|| Instant::now() + age));
            return;
        };
        self.due = None;
        // The database has it; without the file, only a cut tail is harder to find.
        if let Err(error) = replace(&self.checkpoints.file, note.as_bytes()) {
            tracing::error!(%error, "the newest checkpoint is in the database only");
        }
    }

    fn sign(&mut self) -> Result<(), StoreError> {
        let mut head = self.head.clone();
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        catch_up(&transaction, &mut head, |_| Ok(()))?;
        let note = if head.signed == Some(head.tree.size()) {
            None
        } else {
            Some(sign(&transaction, &self.keys, &mut head)?)
        };
        transaction.commit()?;
        self.head = head;
        self.settle(note);
        Ok(())
    }

    fn sign_or_say(&mut self) {
        if self.due.is_none() {
            return;
        }
        if let Err(error) = self.sign() {
            tracing::error!(%error, "no checkpoint was made; trying again");
            self.due = Some(Instant::now() + self.checkpoints.age);
        }
    }
}

/// One entry and whatever `also` does, in one transaction that carries a checkpoint: for who has the database alone.
pub(super) fn append_alone(
    connection: Connection,
    keys: &Arc<LogKeys>,
    checkpoints: Checkpoints,
    entry: Entry,
    also: impl FnOnce(&Connection) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut log = Log::open(connection, Arc::clone(keys), checkpoints)?;
    let mut head = log.head.clone();
    let transaction = log
        .connection
        .transaction_with_behavior(TransactionBehavior::Immediate)?;
    catch_up(&transaction, &mut head, |_| Ok(()))?;
    also(&transaction)?;
    append(&transaction, &keys.mac, &mut head, &[entry])?;
    let note = sign(&transaction, keys, &mut head)?;
    transaction.commit()?;
    log.head = head;
    log.settle(Some(note));
    Ok(())
}

/// The whole new file, or the old one, whenever the machine stops.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(directory(path))?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|source| file_error(path, source))
}

pub(super) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
