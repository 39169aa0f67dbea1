//! Drawing: columns of panels over one axis of time, as SVG. **Pure.** Panels of one row share their axis, and every
//! series is named in its colour above its panel. It has a background of its own, so that it reads the same everywhere.

/// A drawing.
#[derive(Debug)]
pub(in crate::measure) struct Picture {
    /// Above it.
    pub title: String,
    /// Below the title.
    pub subtitle: String,
    /// Side by side.
    pub columns: Vec<Column>,
    /// What the panels of each row show.
    pub rows: Vec<String>,
    /// A time that is shaded, in seconds, and its name.
    pub shaded: (f64, f64, String),
    /// Below it, line by line.
    pub notes: Vec<String>,
}

/// Panels one below the other, one for each row.
#[derive(Debug)]
pub(in crate::measure) struct Column {
    /// Above it.
    pub title: String,
    /// Its panels.
    pub panels: Vec<Vec<Series>>,
}

/// One curve.
#[derive(Debug)]
pub(in crate::measure) struct Series {
    /// Its name, and what to know of it.
    pub name: String,
    /// As CSS has it.
    pub colour: &'static str,
    /// How it is drawn.
    pub style: Style,
    /// Seconds and values, by seconds.
    pub points: Vec<(f64, f64)>,
}

/// How a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::measure) enum Style {
    /// Filled down to zero.
    Area,
    /// A line.
    Line,
    /// A broken line.
    Dashes,
    /// Points by themselves.
    Dots,
}

const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 22.0;
const BETWEEN: f64 = 36.0;
const TOP: f64 = 158.0;
const PANEL: f64 = 112.0;
const ROW: f64 = 168.0;
const INK: &str = "#24292f";
const FAINT: &str = "#656d76";

impl Picture {
    /// The drawing.
    pub(in crate::measure) fn svg(&self) -> String {
        let rows = count(self.rows.len());
        let below = TOP + ROW * (rows - 1.0) + PANEL + 58.0;
        let height = below + 18.0 * count(self.notes.len());
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" role=\"img\" \
             font-family=\"-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif\" font-size=\"13\">\n\
             <title>{}</title>\n<desc>{}</desc>\n",
            escaped(&self.title),
            escaped(&self.subtitle),
        );
        svg += &format!(
            "<rect x=\"0.5\" y=\"0.5\" width=\"{:.0}\" height=\"{:.0}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#d0d7de\"/>\n",
            WIDTH - 1.0,
            height - 1.0
        );
        svg +=
            &text((24.0, 38.0), &format!("fill=\"{INK}\" font-size=\"21\" font-weight=\"600\""), &self.title);
        svg += &text((24.0, 62.0), &format!("fill=\"{FAINT}\""), &self.subtitle);
        let ends = self.ends();
        for (at, column) in self.columns.iter().enumerate() {
            let place = self.place(at);
            let bold = format!("fill=\"{INK}\" font-size=\"16\" font-weight=\"600\"");
            svg += &text((place.x, 100.0), &bold, &column.title);
            for (row, panel) in column.panels.iter().enumerate() {
                let last = row + 1 == column.panels.len();
                let scale = Scale { y: TOP + ROW * count(row), top: self.top_of(row), ends, last, ..place };
                svg += &self.panel(&scale, panel, (at == 0).then_some(row));
            }
            svg += &seconds(&Scale { y: TOP + ROW * (rows - 1.0), ends, ..place });
        }
        for (line, note) in self.notes.iter().enumerate() {
            let y = below + 18.0 * count(line) - 8.0;
            svg += &text((24.0, y), &format!("fill=\"{FAINT}\" font-size=\"12\""), note);
        }
        svg + "</svg>\n"
    }

    fn place(&self, column: usize) -> Scale {
        let columns = count(self.columns.len());
        let width = (WIDTH - LEFT - RIGHT - BETWEEN * (columns - 1.0)) / columns;
        Scale { x: LEFT + (width + BETWEEN) * count(column), width, y: 0.0, top: 1.0, ends: 1.0, last: false }
    }

    fn points(&self, row: Option<usize>) -> impl Iterator<Item = (f64, f64)> {
        let panels = self.columns.iter().flat_map(|column| column.panels.iter().enumerate());
        let of_row = panels.filter(move |(at, _)| row.is_none_or(|row| row == *at));
        of_row.flat_map(|(_, panel)| panel).flat_map(|series| series.points.iter().copied())
    }

    fn ends(&self) -> f64 {
        self.points(None).map(|(second, _)| second).fold(1.0, f64::max)
    }

    /// The end of the axis of a row.
    fn top_of(&self, row: usize) -> f64 {
        let most = self.points(Some(row)).map(|(_, value)| value).fold(1.0, f64::max);
        let step = step(most, 3.0);
        (most / step).ceil() * step
    }

    fn panel(&self, scale: &Scale, panel: &[Series], named: Option<usize>) -> String {
        let mut svg = String::new();
        let (from, to, shade) = &self.shaded;
        let (from, to) = (scale.across(*from), scale.across(*to));
        svg += &format!(
            "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{PANEL:.0}\" fill=\"#f3f4f6\"/>\n",
            scale.y,
            to - from
        );
        let step = step(scale.top, 3.0);
        let mut tick = 0.0;
        while tick <= scale.top {
            let y = scale.up(tick);
            svg += &format!(
                "<path d=\"M{:.1} {y:.1}h{:.1}\" stroke=\"{}\"/>\n",
                scale.x,
                scale.width,
                if tick > 0.0 { "#e5e7eb" } else { "#8c959f" }
            );
            if named.is_some() {
                let end = format!("fill=\"{FAINT}\" font-size=\"12\" text-anchor=\"end\"");
                svg += &text((scale.x - 8.0, y + 4.0), &end, &grouped(tick));
            }
            tick += step;
        }
        for series in panel.iter().filter(|series| !series.points.is_empty()) {
            svg += &curve(scale, series);
        }
        let middle = format!("fill=\"{FAINT}\" font-size=\"12\" text-anchor=\"middle\"");
        if scale.last {
            svg += &text(((from + to) / 2.0, scale.y + 15.0), &middle, shade);
        }
        if let Some(row) = named {
            let bold = format!("fill=\"{INK}\" font-weight=\"600\"");
            svg += &text((24.0, scale.y - 27.0), &bold, &self.rows[row]);
        }
        // Spaces that do not break stand between them, for programs place `dx` differently in text that is aligned at its end.
        let names = panel
            .iter()
            .map(|series| format!("<tspan fill=\"{}\">{}</tspan>", series.colour, escaped(&series.name)));
        let names: Vec<String> = names.collect();
        let (x, y) = (scale.x + scale.width, scale.y - 9.0);
        svg += &format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>\n",
            names.join("\u{a0}\u{a0}\u{a0} ")
        );
        svg
    }
}

/// Where a panel is, and what its edges stand for.
#[derive(Debug, Clone, Copy)]
struct Scale {
    x: f64,
    y: f64,
    width: f64,
    ends: f64,
    top: f64,
    /// Whether nothing is below it.
    last: bool,
}

impl Scale {
    fn across(&self, second: f64) -> f64 {
        self.x + self.width * second / self.ends
    }

    fn up(&self, value: f64) -> f64 {
        self.y + PANEL * (1.0 - value / self.top)
    }
}

fn curve(scale: &Scale, series: &Series) -> String {
    let mut path = String::new();
    for (at, (second, value)) in series.points.iter().enumerate() {
        let command = if at == 0 { 'M' } else { 'L' };
        path += &format!("{command}{:.1} {:.1}", scale.across(*second), scale.up(*value));
    }
    let colour = series.colour;
    let line = |more: &str| {
        format!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-linejoin=\"round\"{more}/>\n"
        )
    };
    match (series.style, series.points.first(), series.points.last()) {
        (Style::Area, Some((first, _)), Some((last, _))) => {
            let (from, to, zero) = (scale.across(*first), scale.across(*last), scale.up(0.0));
            let filled = format!("{path}L{to:.1} {zero:.1}L{from:.1} {zero:.1}Z");
            format!("<path d=\"{filled}\" fill=\"{colour}\" fill-opacity=\"0.22\"/>\n") + &line("")
        }
        (Style::Dots, ..) => {
            let dot = |(second, value): &(f64, f64)| {
                let (x, y) = (scale.across(*second), scale.up(*value));
                format!(
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\" fill-opacity=\"0.6\"/>\n"
                )
            };
            series.points.iter().map(dot).collect()
        }
        (Style::Dashes, ..) => line(" stroke-dasharray=\"5 4\""),
        (Style::Area | Style::Line, ..) => line(""),
    }
}

/// The axis of time below a panel.
fn seconds(scale: &Scale) -> String {
    let step = step(scale.ends, 6.0);
    let (mut svg, mut tick) = (String::new(), 0.0);
    while tick <= scale.ends {
        let name = if tick > 0.0 { format!("{tick:.0}") } else { "0 s".to_owned() };
        let middle = format!("fill=\"{FAINT}\" font-size=\"12\" text-anchor=\"middle\"");
        svg += &text((scale.across(tick), scale.y + PANEL + 18.0), &middle, &name);
        tick += step;
    }
    svg
}

/// A round step of which about so many, and never more than twice as many, reach `most`.
fn step(most: f64, steps: f64) -> f64 {
    let rough = most / steps;
    let ten = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].iter().map(|factor| factor * ten).rfind(|step| *step <= rough).unwrap_or(ten)
}

fn text((x, y): (f64, f64), attributes: &str, content: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{}</text>\n", escaped(content))
}

/// A whole number, its digits in groups of three.
pub(in crate::measure) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let first = (digits.len() + 2) % 3;
    let comma = |(at, digit): (usize, char)| {
        let comma = at > 0 && (at + 2) % 3 == first;
        [comma.then_some(','), Some(digit)].into_iter().flatten()
    };
    digits.chars().enumerate().flat_map(comma).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn count(count: usize) -> f64 {
    super::number(count as u64)
}

#[cfg(test)]
mod tests;
