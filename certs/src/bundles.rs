//! The bundles of all configured files. A pair of files that breaks keeps serving as it last did.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::bundle::{Bundle, Error, load};

/// One certificate chain and its key, as files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The chain, leaf first.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Whether clients that name no host are answered with it.
    pub default: bool,
}

/// Every configured pair with its last good bundle.
#[derive(Debug, Default)]
pub struct Bundles(Vec<Held>);

#[derive(Debug)]
struct Held {
    pair: Pair,
    last_good: Option<Arc<Bundle>>,
}

impl Bundles {
    /// Holds `pairs`, of which none has been read yet.
    pub fn new(pairs: Vec<Pair>) -> Self {
        let mut bundles = Self::default();
        bundles.configure(pairs);
        bundles
    }

    /// Takes another list of pairs; those whose files stay the same keep their last good bundle.
    pub fn configure(&mut self, pairs: Vec<Pair>) {
        let mut before = std::mem::take(&mut self.0);
        self.0 = pairs
            .into_iter()
            .map(|pair| {
                let known = before
                    .iter_mut()
                    .find(|held| held.pair.chain == pair.chain && held.pair.key == pair.key);
                Held {
                    last_good: known.and_then(|held| held.last_good.take()),
                    pair,
                }
            })
            .collect();
    }

    /// Reads every pair again and says what came of each, in their order.
    pub fn load_all(&mut self, now: SystemTime) -> Vec<Reload> {
        self.0
            .iter_mut()
            .map(|held| Reload {
                pair: held.pair.clone(),
                outcome: held.load(now),
            })
            .collect()
    }

    /// The pairs, in their order.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.0.iter().map(|held| &held.pair)
    }

    /// The last good bundle of each pair that has one, with whether it is the default.
    pub fn good(&self) -> impl Iterator<Item = (Arc<Bundle>, bool)> {
        self.0
            .iter()
            .filter_map(|held| Some((Arc::clone(held.last_good.as_ref()?), held.pair.default)))
    }
}

impl Held {
    fn load(&mut self, now: SystemTime) -> Outcome {
        let bundle = match load(&self.pair.chain, &self.pair.key, now) {
            Ok(bundle) => Arc::new(bundle),
            Err(error) if self.last_good.is_some() => return Outcome::Kept(error),
            Err(error) => return Outcome::Missing(error),
        };
        let chain = |bundle: &Bundle| bundle.certified_key.cert.clone();
        match self.last_good.replace(Arc::clone(&bundle)) {
            Some(old) if chain(&old) == chain(&bundle) => Outcome::Unchanged,
            Some(_) => Outcome::Replaced(bundle),
            None => Outcome::Added(bundle),
        }
    }
}

/// What came of reading one pair.
#[derive(Debug)]
pub struct Reload {
    /// The files.
    pub pair: Pair,
    /// What came of them.
    pub outcome: Outcome,
}

/// What came of reading one pair.
#[derive(Debug)]
pub enum Outcome {
    /// Read for the first time.
    Added(Arc<Bundle>),
    /// Broken now; the last good one goes on serving.
    Kept(Error),
    /// Broken, and there is none to serve instead.
    Missing(Error),
    /// Another certificate than before.
    Replaced(Arc<Bundle>),
    /// The same as before.
    Unchanged,
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::{make, now};

    fn outcomes(bundles: &mut Bundles) -> Vec<&'static str> {
        let word = |reload: &Reload| match reload.outcome {
            Outcome::Added(_) => "added",
            Outcome::Kept(_) => "kept",
            Outcome::Missing(_) => "missing",
            Outcome::Replaced(_) => "replaced",
            Outcome::Unchanged => "unchanged",
        };
        bundles.load_all(now()).iter().map(word).collect()
    }

    #[test]
    fn a_pair_that_breaks_keeps_its_last_good_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let first = make(&["a.example"]);
        let pair = first.write(folder.path(), "a");
        let mut bundles = Bundles::new(vec![pair.clone()]);
        assert_eq!(outcomes(&mut bundles), ["added"]);
        assert_eq!(outcomes(&mut bundles), ["unchanged"]);

        let second = make(&["a.example"]);
        fs::write(&pair.chain, &second.chain).unwrap();
        assert_eq!(outcomes(&mut bundles), ["kept"], "half of a renewal");
        let served = |bundles: &Bundles| bundles.good().next().unwrap().0.fingerprint;
        let before = served(&bundles);
        fs::write(&pair.key, &second.key).unwrap();
        assert_eq!(outcomes(&mut bundles), ["replaced"]);
        assert_ne!(served(&bundles), before);

        fs::remove_file(&pair.key).unwrap();
        assert_eq!(outcomes(&mut bundles), ["kept"]);
        assert_eq!(bundles.good().count(), 1);
    }

    #[test]
    fn one_broken_pair_leaves_the_others_alone() {
        let folder = tempfile::tempdir().unwrap();
        let good = make(&["a.example"]).write(folder.path(), "a");
        let broken = make(&["b.example"]).write(folder.path(), "b");
        fs::write(&broken.key, "").unwrap();
        let mut bundles = Bundles::new(vec![broken, good]);
        assert_eq!(outcomes(&mut bundles), ["missing", "added"]);
        assert_eq!(bundles.good().count(), 1);
    }

    #[test]
    fn a_new_configuration_keeps_what_stays_and_drops_what_goes() {
        let folder = tempfile::tempdir().unwrap();
        let pairs = ["a", "b", "c"].map(|name| make(&["a.example"]).write(folder.path(), name));
        let [a, b, c] = pairs;
        let mut bundles = Bundles::new(vec![a, b.clone()]);
        bundles.load_all(now());
        fs::write(&b.key, "").unwrap();
        let default = Pair { default: true, ..b };
        bundles.configure(vec![c, default]);
        assert_eq!(outcomes(&mut bundles), ["added", "kept"]);
        let defaults: Vec<_> = bundles.good().map(|(_, default)| default).collect();
        assert_eq!(defaults, [false, true]);
    }
}
