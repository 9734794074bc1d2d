//! What is different for the requests of some paths, as the configuration file says.

use std::sync::Arc;

use http::Method;

use crate::config::file::{Route, RouteModules};
use crate::rate::Rate;

/// The routes, the most particular first.
#[derive(Default)]
pub struct Overrides(Vec<Arc<Override>>);

/// What is different for one route.
pub struct Override {
    pub route: Route,
    pub rate: Option<Rate>,
}

impl Overrides {
    pub fn new(routes: &[Route]) -> Self {
        let of = |route: &Route| {
            let rate = route.rate_limit_tokens_per_second.map(Rate::per_second);
            Arc::new(Override { route: route.clone(), rate })
        };
        let mut all: Vec<_> = routes.iter().map(of).collect();
        // An exact path before those below one, longer before shorter, one for some methods before one for all.
        let rank = |one: &Arc<Override>| {
            let Route { path, methods, .. } = &one.route;
            (path.ends_with("/*"), std::cmp::Reverse(path.len()), methods.is_empty())
        };
        all.sort_by_key(rank);
        Self(all)
    }

    /// The names of modules that routes give and that are none of `known`, each with its route's path.
    pub fn unknown_modules<'o>(&'o self, known: &[&str]) -> impl Iterator<Item = (&'o str, &'o str)> {
        let named = self.0.iter().filter_map(|one| match &one.route.modules {
            RouteModules::Named(names) => Some(names.iter().map(|name| (one.route.path.as_str(), name.as_str()))),
            RouteModules::All | RouteModules::None => None,
        });
        named.flatten().filter(|(_, name)| !known.contains(name))
    }

    /// What is different for a request, judged on the path as it was sent.
    pub fn find(&self, method: &Method, path: &str) -> Option<Arc<Override>> {
        self.0.iter().find(|one| one.covers(method, path)).cloned()
    }
}

impl Override {
    fn covers(&self, method: &Method, path: &str) -> bool {
        let Route { path: pattern, methods, .. } = &self.route;
        let is_path = match pattern.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == pattern,
        };
        is_path && (methods.is_empty() || methods.contains(method))
    }

    /// Whether the module with this name sees the route's requests.
    pub fn admits(&self, module: &str) -> bool {
        match &self.route.modules {
            RouteModules::All => true,
            RouteModules::None => false,
            RouteModules::Named(names) => names.iter().any(|name| name == module),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_particular_route_counts() {
        let route = |path: &str, methods: &[Method]| Route {
            path: path.to_owned(),
            methods: methods.to_vec(),
            pool: None,
            request_timeout_secs: None,
            first_byte_timeout_secs: None,
            retries: None,
            rate_limit_tokens_per_second: None,
            max_payload_size: None,
            modules: RouteModules::All,
        };
        let routes = [
            route("/*", &[]),
            route("/v1/*", &[]),
            route("/v1/a", &[]),
            route("/v1/a", &[Method::POST]),
            route("/v1/long/*", &[]),
        ];
        let overrides = Overrides::new(&routes);
        for (method, path, expected) in [
            (Method::GET, "/", "/*"),
            (Method::GET, "/v1", "/*"),
            (Method::GET, "/v1/", "/v1/*"),
            (Method::GET, "/v1/a", "/v1/a"),
            (Method::GET, "/v1/a/b", "/v1/*"),
            (Method::GET, "/v1/long/x", "/v1/long/*"),
        ] {
            let found = overrides.find(&method, path).expect("one covers everything");
            assert_eq!(found.route.path, expected, "{path}");
        }
        let posted = overrides.find(&Method::POST, "/v1/a").expect("a route");
        assert_eq!(posted.route.methods, [Method::POST]);
        assert!(Overrides::new(&[]).find(&Method::GET, "/").is_none());
    }
}
