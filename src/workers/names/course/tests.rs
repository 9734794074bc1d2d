use super::*;

fn found(ips: &[&str], ttl: u64) -> Result<Found, NameError> {
    let ips = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
    Ok(Found { ips, ttl: Duration::from_secs(ttl), v4_unknown: false, v6_unknown: false })
}

fn course(guard: Guard) -> Course {
    Course::new(80, guard)
}

fn shown(course: &Course) -> Vec<String> {
    course.addresses().iter().map(ToString::to_string).collect()
}

/// The letter of the news, and the pause in seconds.
fn step(course: &mut Course, result: Result<Found, NameError>) -> (char, u64) {
    let (news, pause) = course.after(result);
    let letter = match news {
        News::Same => '-',
        News::Moved { .. } => 'M',
        News::Again => 'A',
        News::Failing(_) => 'F',
    };
    (letter, pause.as_secs())
}

/// Case 60: the name does not exist for 10 seconds, then it has another address.
#[test]
fn a_name_that_vanishes_keeps_its_address_and_its_new_one_is_found_within_the_ttl() {
    for ttl in [1, 3, 5, 60] {
        let mut course = course(Guard::Operator);
        assert_eq!(step(&mut course, found(&["10.0.0.1"], ttl)), ('M', ttl));
        let mut failures = 0;
        let mut at = 0;
        while at < 10 {
            let (news, pause) = step(&mut course, Err(NameError::NotFound));
            assert_eq!((news, shown(&course)), (if failures == 0 { 'F' } else { '-' }, vec!["10.0.0.1:80".into()]));
            (failures, at) = (failures + 1, at + pause);
        }
        assert!(at <= 10 + ttl, "with a TTL of {ttl} s, {} s after it came back", at - 10);
        assert_eq!(step(&mut course, found(&["10.0.0.2"], ttl)), ('M', ttl));
        assert_eq!(shown(&course), ["10.0.0.2:80"]);
    }
}

#[test]
fn pauses_are_bounded_and_each_change_is_news_once() {
    let mut course = course(Guard::Operator);
    let pauses: Vec<_> = (0..7).map(|_| step(&mut course, Err(NameError::NotFound))).collect();
    assert_eq!(pauses, [('F', 1), ('-', 2), ('-', 4), ('-', 8), ('-', 16), ('-', 30), ('-', 30)]);
    assert_eq!(step(&mut course, Err(NameError::Timeout)), ('F', 30));
    assert_eq!(step(&mut course, found(&["10.0.0.2", "10.0.0.1"], 0)), ('M', 1));
    assert_eq!(step(&mut course, found(&["10.0.0.1", "10.0.0.2", "10.0.0.1"], 7)), ('-', 7));
    assert_eq!(step(&mut course, Err(NameError::Timeout)), ('F', 1));
    assert_eq!(step(&mut course, found(&["10.0.0.1", "10.0.0.2"], 1_000_000)), ('A', 300));
    assert_eq!(step(&mut course, found(&[], 7)), ('F', 1));
    let many: Vec<_> = (0..200).map(|n| format!("10.0.1.{n}")).collect();
    step(&mut course, found(&many.iter().map(String::as_str).collect::<Vec<_>>(), 7));
    assert_eq!(course.addresses().len(), MOST_ADDRESSES);
}

#[test]
fn a_name_that_turns_to_a_refused_address_stays_where_it_was() {
    let mut course = course(Guard::AdminApi(["0.0.0.0:80".parse().expect("an address")].into()));
    step(&mut course, found(&["10.0.0.1"], 60));
    for bad in [&["169.254.169.254"][..], &["10.0.0.2", "fd00:ec2::254"], &["::ffff:169.254.1.1"], &["127.0.0.1"]] {
        let (_, pause) = course.after(found(bad, 60));
        assert_eq!((shown(&course), pause <= Duration::from_secs(8)), (vec!["10.0.0.1:80".into()], true), "{bad:?}");
    }
    assert_eq!(step(&mut course, found(&["10.0.0.2"], 60)), ('M', 60));
}

#[test]
fn of_a_family_that_is_not_heard_of_the_last_addresses_stay() {
    let mut course = course(Guard::Operator);
    step(&mut course, found(&["10.0.0.1", "fd00::1"], 5));
    let only = |ips: &[&str], v4_unknown, v6_unknown| Found { v4_unknown, v6_unknown, ..found(ips, 5).expect("found") };
    step(&mut course, Ok(only(&["10.0.0.2"], false, true)));
    assert_eq!(shown(&course), ["10.0.0.2:80", "[fd00::1]:80"]);
    step(&mut course, Ok(only(&["fd00::2"], true, false)));
    assert_eq!(shown(&course), ["10.0.0.2:80", "[fd00::2]:80"]);
    step(&mut course, Ok(only(&["10.0.0.3"], false, false)));
    assert_eq!(shown(&course), ["10.0.0.3:80"]);
}
