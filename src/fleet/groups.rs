//! Which workers make up which pool: by what is said of each, or else by what each lists itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{Policy, file};
use crate::workers::Worker;
use crate::workers::pool::Serves;

/// A pool that is being put together.
pub struct Group {
    pub serves: Serves,
    pub policy: Policy,
    pub workers: Vec<Arc<Worker>>,
}

/// A worker that serves, and the models that are said to be its own; none if nothing is said.
pub struct Candidate {
    pub worker: Arc<Worker>,
    pub models: Vec<String>,
}

impl Group {
    fn new(model: Option<&str>, aliases: &[String], policy: Policy) -> Self {
        Self { serves: Serves::new(model, aliases), policy, workers: Vec::new() }
    }

    fn of_file(pool: &file::Pool, policy: Policy) -> Self {
        let serves = match pool.rewrite {
            true => Serves::renaming(&pool.model, &pool.aliases),
            false => Serves::new(Some(&pool.model), &pool.aliases),
        };
        Self { serves, policy: pool.policy.unwrap_or(policy), workers: Vec::new() }
    }

    /// Once, under whichever of the pool's names it comes.
    fn push(&mut self, worker: &Arc<Worker>) {
        if !self.workers.iter().any(|known| Arc::ptr_eq(known, worker)) {
            self.workers.push(worker.clone());
        }
    }
}

/// The pools: those of the file, then those of other models that are said or listed, and one that serves all models for
/// workers of which nothing is known; at least one. A worker of several models is in the pool of each.
///
/// Where nothing is said of any worker and all list the same, there is no choice to make: one pool serves all, and no
/// body has to be read to find its model.
pub fn groups(of_file: &[file::Pool], policy: Policy, candidates: &[Candidate]) -> Vec<Group> {
    let mut groups: Vec<Group> = of_file.iter().map(|pool| Group::of_file(pool, policy)).collect();
    let (said, others): (Vec<_>, Vec<_>) = candidates.iter().partition(|candidate| !candidate.models.is_empty());
    for Candidate { worker, models } in said {
        for model in models {
            match groups.iter_mut().find(|group| group.serves.model(model)) {
                Some(group) => group.push(worker),
                None => {
                    let workers = vec![worker.clone()];
                    groups.push(Group { workers, ..Group::new(Some(model), &[], policy) });
                }
            }
        }
    }
    let lists: Vec<_> = others.into_iter().map(|other| (&other.worker, other.worker.models())).collect();
    let mut listed = lists.iter().map(|(_, models)| models).filter(|models| !models.is_empty());
    let first = listed.next();
    // A list that is too large to be read is another one than a list that was read.
    let is_unread =
        |(worker, models): &(&Arc<Worker>, Arc<Vec<String>>)| models.is_empty() && !worker.listing.may_have_any();
    let is_same = first.is_none() || !lists.iter().any(is_unread);
    let is_one = groups.is_empty() && is_same && listed.all(|models| Some(models) == first);
    let mut all = Group::new(None, &[], policy);
    // No model has this name: these workers are there, and get what names no model.
    let mut unread = Group::new(Some(""), &[], policy);
    let mut servers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, (worker, models)) in lists.iter().enumerate() {
        if is_one || worker.listing.may_have_any() {
            all.push(worker);
            continue;
        }
        if models.is_empty() {
            unread.push(worker);
        }
        for model in models.iter() {
            match groups.iter_mut().find(|group| group.serves.model(model)) {
                Some(group) => group.push(worker),
                None => servers.entry(model).or_default().push(at),
            }
        }
    }
    // Models that the same workers list, such as one with its adapters, share a pool.
    let mut shared: BTreeMap<Vec<usize>, Vec<String>> = BTreeMap::new();
    for (model, workers) in servers {
        shared.entry(workers).or_default().push(model.to_owned());
    }
    for (workers, models) in shared {
        let mut group = Group::new(models.first().map(String::as_str), &models[1..], policy);
        workers.into_iter().for_each(|at| group.push(lists[at].0));
        groups.push(group);
    }
    if !unread.workers.is_empty() {
        groups.push(unread);
    }
    if groups.is_empty() || !all.workers.is_empty() {
        groups.push(all);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::workers::Health;

    /// `said` and what it `lists`, each separated by commas.
    fn candidate(at: usize, said: &str, lists: &str) -> Candidate {
        let url = format!("http://w{at}:1").parse().expect("a URL");
        let worker = Arc::new(Worker::new(url, Health::Healthy, &Config::of(&[])));
        let names = |text: &str| text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        worker.listing.set(names(lists));
        Candidate { worker, models: names(said) }
    }

    /// Each pool as a name of its models and its workers' numbers.
    fn grouped(of_file: &[file::Pool], workers: &[(&str, &str)], models: &[&str]) -> Vec<(String, String)> {
        let candidates = workers.iter().enumerate().map(|(at, (said, lists))| candidate(at, said, lists));
        let groups = groups(of_file, Policy::RoundRobin, &candidates.collect::<Vec<_>>());
        let serves = |group: &Group| match group.serves.all() {
            true => "*".to_owned(),
            false => models.iter().copied().filter(|model| group.serves.model(model)).collect::<Vec<_>>().join(","),
        };
        let numbers = |group: &Group| group.workers.iter().map(|worker| &worker.url.host()[1..]).collect();
        groups.iter().map(|group| (serves(group), numbers(group))).collect()
    }

    fn pool_of_file() -> file::Pool {
        let (model, aliases) = ("a".into(), vec!["a2".into()]);
        file::Pool { model, aliases, rewrite: true, policy: None, workers: Vec::new() }
    }

    #[track_caller]
    fn check(of_file: &[file::Pool], workers: &[(&str, &str)], wanted: &[(&str, &str)]) {
        let found = grouped(of_file, workers, &["a", "a2", "b", "c", "d"]);
        let found: Vec<_> = found.iter().map(|(models, workers)| (models.as_str(), workers.as_str())).collect();
        assert_eq!(found, wanted, "{workers:?}");
    }

    #[test]
    fn workers_that_list_the_same_or_nothing_are_one_pool_for_all() {
        check(&[], &[], &[("*", "")]);
        check(&[], &[("", ""), ("", "")], &[("*", "01")]);
        check(&[], &[("", "a"), ("", "a"), ("", "")], &[("*", "012")]);
        check(&[], &[("", "a,b"), ("", "a,b")], &[("*", "01")]);
    }

    #[test]
    fn workers_that_list_others_are_in_the_pool_of_each() {
        check(&[], &[("", "a"), ("", "b")], &[("a", "0"), ("b", "1")]);
        check(&[], &[("", "a"), ("", "b"), ("", "")], &[("a", "0"), ("b", "1"), ("*", "2")]);
        check(&[], &[("", "a,b,c"), ("", "a,c,d"), ("", "b")], &[("a,c", "01"), ("b", "02"), ("d", "1")]);
        check(&[], &[("", "a,c"), ("", "a,c"), ("", "b")], &[("a,c", "01"), ("b", "2")]);
    }

    #[test]
    fn what_is_said_counts_and_not_what_is_listed() {
        check(&[], &[("a", "b"), ("", "")], &[("a", "0"), ("*", "1")]);
        check(&[], &[("a", "b"), ("", "a,c")], &[("a", "01"), ("c", "1")]);
        check(&[], &[("a,b", ""), ("b", "")], &[("a", "0"), ("b", "01")]);
        let pool = pool_of_file();
        check(std::slice::from_ref(&pool), &[("a", ""), ("", "a,a2"), ("", "b")], &[("a,a2", "01"), ("b", "2")]);
        check(&[pool], &[], &[("a,a2", "")]);
    }
    // Models that a worker lists are names that it knows.
    #[test]
    fn only_aliases_of_the_file_are_renamed() {
        let listed = groups(&[], Policy::RoundRobin, &[candidate(0, "", "a,b"), candidate(1, "", "c")]);
        assert!(listed.iter().all(|group| !group.serves.renames() && group.serves.own_name("b").is_none()));
        let names = |pool| {
            let of_file = groups(&[pool], Policy::RoundRobin, &[]);
            let serves = &of_file[0].serves;
            (serves.renames(), serves.own_name("a2").map(str::to_owned), serves.own_name("a").is_some())
        };
        assert_eq!(names(pool_of_file()), (true, Some("a".into()), false));
        assert_eq!(names(file::Pool { rewrite: false, ..pool_of_file() }), (false, None, false));
        assert_eq!(names(file::Pool { aliases: Vec::new(), ..pool_of_file() }), (false, None, false));
    }
}
