use super::*;

fn answer(uri: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Guard::default().on_request(&Request {
        uri: uri.to_owned(),
        headers,
    })
}

fn tags(uri: &str, headers: &[(&str, &str)]) -> &'static [&'static str] {
    answer(uri, headers).tags
}

#[test]
fn every_default_is_a_rule() {
    let guard = Guard::default();
    assert_eq!(guard.protected.len(), PROTECTED.len());
    for (patterns, texts) in [
        (&guard.sql, SQL),
        (&guard.xss, XSS),
        (&guard.traversal, TRAVERSAL),
        (&guard.scanners, SCANNERS),
    ] {
        assert_eq!(patterns.len(), texts.len());
    }
}

#[test]
fn protected_paths_need_credentials() {
    for headers in [
        &[][..],
        &[("Authorization", " ")],
        &[("X-Authorization", "x")],
    ] {
        let answer = answer("/admin/users", headers);
        assert_eq!(
            (answer.decision, answer.status, answer.body, answer.tags),
            (
                Decision::Block,
                Some(401),
                Some("Authentication required"),
                &["auth-required"][..]
            )
        );
        assert_eq!(answer.add_response_headers["WWW-Authenticate"], "Bearer");
    }
    for name in ["Authorization", "authorization", "AUTHORIZATION"] {
        assert_eq!(answer("/admin", &[(name, "Bearer k")]), Answer::ALLOW);
    }
}

#[test]
fn attacks_are_blocked_and_named() {
    for (tag, uris) in [
        (
            "sql-injection",
            &[
                "/items?id=1+UNION+SELECT+password+FROM+users",
                "/items?id=1%27%20OR%20%271%27%3D%271",
                "/items?id=1'+or+1=1--",
                "/items?id=1%2527%2520or%25201%253D1",
                "/items?id=1;DROP/**/TABLE+users",
                "/items/-1%20union%20all%20select%201",
                "/items?id=1+and+sleep(5)",
                "/login?user=admin'--",
            ][..],
        ),
        (
            "xss",
            &[
                "/?q=<script>x</script>",
                "/?q=%3CScRiPt%3E",
                "/?q=%253Cscript%253E",
                "/?q=%3Cimg+src=x+onerror%20=x%3E",
                "/?q=%3Csvg/onload=x%3E",
                "/?next=javascript:x",
                "/?q=%22%20onmouseover=x",
            ],
        ),
        (
            "path-traversal",
            &[
                "/files/../../secret",
                "/files/..%2f..%2fsecret",
                "/files/%252e%252e%252fsecret",
                "/files/..%5csecret",
                "/files/..",
                "/files/..;/secret",
                "/files/....//secret",
                "/files/%c0%ae%c0%ae/secret",
                "/?file=/etc/passwd%00.png",
            ],
        ),
    ] {
        for uri in uris {
            let answer = answer(uri, &[]);
            assert_eq!(answer.tags, [tag], "{uri}");
            assert_eq!(
                (answer.decision, answer.status),
                (Decision::Block, Some(403))
            );
            assert_eq!(answer.body, Some("Request blocked"));
        }
    }
}

#[test]
fn scanners_are_blocked() {
    for agent in [
        "sqlmap/1.8#stable (https://sqlmap.org)",
        "Mozilla/5.00 (Nikto/2.5.0)",
        "Mozilla/5.0 (compatible; Nmap Scripting Engine)",
        "Fuzz  Faster U Fool v2.1",
    ] {
        for name in ["User-Agent", "user-agent"] {
            assert_eq!(tags("/", &[(name, agent)]), ["scanner"], "{agent}");
        }
    }
}

#[test]
fn honest_requests_pass() {
    for uri in [
        "/",
        "*",
        "/reunion",
        "/selection",
        "/administrator",
        "/administrator/x",
        "/v1/chat/completions",
        "/union/select",
        "/?q=reunion+selection",
        "/?q=the+union+selected+him",
        "/?q=drop+tables",
        "/?q=for+11+and+12",
        "/?q=O'Brien+or+O'Neil",
        "/?q=the+dogs'+or+the+cats",
        "/?q=rock+'n'+roll",
        "/api.js?onload=ready",
        "/?q=1+<+2",
        "/scripts/app.js",
        "/description?lang=en",
        "/v1...2",
        "/.well-known/x",
        "/..data/x",
        "/file..name",
        "/caf%C3%A9?q=100%",
    ] {
        assert_eq!(
            answer(uri, &[("User-Agent", "curl/8.1")]),
            Answer::ALLOW,
            "{uri}"
        );
    }
    for agent in ["Mozilla/5.0", "nmapper/1", "python-requests/2.31", ""] {
        assert_eq!(
            answer("/", &[("User-Agent", agent)]),
            Answer::ALLOW,
            "{agent}"
        );
    }
}

#[test]
fn responses_are_secured() {
    let json = serde_json::to_string(&secured_response()).unwrap();
    assert_eq!(
        json,
        concat!(
            r#"{"decision":"allow","add_response_headers":{"Referrer-Policy":"no-referrer","#,
            r#""X-Content-Type-Options":"nosniff","X-Frame-Options":"DENY"},"#,
            r#""remove_response_headers":["Server","X-Powered-By"]}"#
        )
    );
}
