use super::*;

fn series(name: &str, style: Style, points: &[(f64, f64)]) -> Series {
    Series { name: name.to_owned(), colour: "#123456", style, points: points.to_vec() }
}

fn picture() -> Picture {
    let column = |title: &str, peak| Column {
        title: title.to_owned(),
        panels: vec![
            vec![
                series("offered", Style::Area, &[(0.0, 0.0), (5.0, peak), (10.0, 0.0)]),
                series("a < b & c", Style::Dashes, &[(0.0, 50.0), (10.0, 50.0)]),
            ],
            vec![series("age", Style::Line, &[(0.0, 0.0), (10.0, 7.0)])],
        ],
    };
    Picture {
        title: "Title".to_owned(),
        subtitle: "Subtitle".to_owned(),
        columns: vec![column("left", 100.0), column("right", 40.0)],
        rows: vec!["Events".to_owned(), "Age".to_owned()],
        shaded: (1.0, 4.0, "burst".to_owned()),
        notes: vec!["A note.".to_owned()],
    }
}

/// Every element is closed in its turn, and no text holds what begins one.
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    let mut pieces = svg.split('<');
    assert_eq!(pieces.next(), Some(""));
    for piece in pieces {
        let (tag, text) = piece.split_once('>').expect("a tag ends");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        assert!(
            !text.contains('>') && text.replace("&amp;", "").replace("&lt;", "").find('&').is_none(),
            "{text}"
        );
        let name = tag.split([' ', '/']).next().unwrap();
        match tag.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed)),
            None if tag.ends_with('/') => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn it_is_well_formed_and_holds_every_series() {
    let svg = picture().svg();
    assert_well_formed(&svg);
    for text in
        ["Title", "Subtitle", "left", "right", "offered", "a &lt; b &amp; c", "age", "burst", "A note."]
    {
        assert!(svg.contains(&format!(">{text}<")), "{text}");
    }
    // A line for each series, and a filled shape for each area.
    assert_eq!(svg.matches("stroke=\"#123456\"").count(), 6);
    assert_eq!(svg.matches("fill=\"#123456\" fill-opacity").count(), 2);
    assert_eq!(svg, picture().svg());
}

#[test]
fn panels_of_a_row_share_their_axis() {
    let svg = picture().svg();
    let tops: Vec<&str> = svg.lines().filter(|line| line.contains("fill-opacity")).collect();
    let peak_of = |line: &str| {
        let second = line.split('L').nth(1).and_then(|point| point.split_once(' ')).unwrap().1;
        second.parse::<f64>().unwrap()
    };
    let (left, right) = (TOP + PANEL - peak_of(tops[0]), TOP + PANEL - peak_of(tops[1]));
    assert!((left * 0.4 - right).abs() < 0.2, "{left} {right}");
}

#[test]
fn nothing_leaves_its_panel() {
    let picture = picture();
    assert!((0..2).all(|row| picture.points(Some(row)).all(|(_, value)| value <= picture.top_of(row))));
    assert_eq!((picture.top_of(0), picture.top_of(1), picture.ends()), (100.0, 8.0, 10.0));
}

#[test]
fn steps_are_round_and_digits_are_in_groups() {
    assert_eq!(
        [step(100.0, 3.0), step(7.0, 3.0), step(4_000.0, 3.0), step(230.0, 6.0)],
        [20.0, 2.0, 1_000.0, 20.0]
    );
    let texts = [0.0, 12.0, 999.0, 1_000.0, 45_678.0, 240_000.0, 1_234_567.0].map(grouped);
    assert_eq!(texts, ["0", "12", "999", "1,000", "45,678", "240,000", "1,234,567"]);
}
