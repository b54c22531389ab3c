//! What is left in the store when the load has ended: verified key by key, and deleted.

use super::caller::{held, shown};
use super::{Counts, Shared};
use crate::generator::Problem;
use dkv_client::{Client, ClientError, Value};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Keys that are read or deleted at once.
const AT_ONCE: usize = 256;
/// The rest before a node that did not answer is asked again.
const AGAIN: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub struct Remains {
    pub(super) shared: Arc<Shared>,
}

impl Remains {
    /// All that was counted, with what every key that was ever written holds now, read within `patience`; and how many keys
    /// that were. `progress` hears how many there are and how many were read.
    ///
    /// # Errors
    /// The store does not answer for all of them in that time: then nobody knows.
    pub fn verify(
        &self,
        patience: Duration,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Counts, u64), Problem> {
        let mut counts = self.shared.counted();
        let expected = self.shared.ledger.expected();
        let deadline = Instant::now() + patience;
        let mut client = None;
        let mut read = 0;
        for batch in expected.chunks(AT_ONCE) {
            let keys: Vec<String> =
                batch.iter().map(|it| self.shared.keys.key(it.slot, it.generation)).collect();
            let values = self.each(&mut client, &["GET"], &keys, deadline)?;
            for ((expected, key), value) in batch.iter().zip(&keys).zip(&values) {
                let held = held(expected.slot, expected.generation, value);
                if let Some(fault) = expected.judge(held) {
                    counts.fault(fault, || format!("{key} holds {} in the end", shown(value)));
                }
            }
            read += batch.len() as u64;
            progress(read, expected.len() as u64);
        }
        Ok((counts, read))
    }

    /// Deletes every key that was ever written.
    ///
    /// # Errors
    /// The store does not answer in time; the keys that are left begin with the prefix of the plan.
    pub fn clean_up(&self, patience: Duration) -> Result<u64, Problem> {
        let deadline = Instant::now() + patience;
        let mut client = None;
        let mut deleted = 0;
        for batch in self.shared.ledger.expected().chunks(AT_ONCE) {
            let keys: Vec<String> =
                batch.iter().map(|it| self.shared.keys.key(it.slot, it.generation)).collect();
            let answers = self.each(&mut client, &["UNLINK"], &keys, deadline)?;
            deleted += answers.iter().filter(|it| matches!(it, Value::Integer(1))).count() as u64;
        }
        Ok(deleted)
    }

    /// The same command for each of some keys, asked again until all are answered: each may be done twice.
    fn each(
        &self,
        client: &mut Option<Client>,
        command: &[&str],
        keys: &[String],
        deadline: Instant,
    ) -> Result<Vec<Value>, Problem> {
        loop {
            let why = match self.once(client, command, keys) {
                Ok(values) => match values.iter().find_map(Value::as_error) {
                    None => return Ok(values),
                    Some(text) => text,
                },
                Err(error) => {
                    *client = None;
                    error.to_string()
                }
            };
            if Instant::now() >= deadline {
                let what = format!("the keys of the load could not be asked for: {why}");
                let hint = format!(
                    "look at the store: dkv store list; the keys begin with {}",
                    self.shared.plan.prefix
                );
                return Err(Problem::failed(what, hint));
            }
            std::thread::park_timeout(AGAIN);
        }
    }

    fn once(
        &self,
        client: &mut Option<Client>,
        command: &[&str],
        keys: &[String],
    ) -> Result<Vec<Value>, ClientError> {
        let requests: Vec<Vec<&[u8]>> = keys
            .iter()
            .map(|key| command.iter().map(|word| word.as_bytes()).chain([key.as_bytes()]).collect())
            .collect();
        let requests: Vec<&[&[u8]]> = requests.iter().map(Vec::as_slice).collect();
        let client = match client {
            Some(client) => client,
            none => none.insert(Client::connect(self.shared.plan.options())?),
        };
        client.call_many(&requests)
    }
}
