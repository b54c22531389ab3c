//! Latency against load, as a picture and as bars of text. Pure.

use super::report::ms_text;
use super::sweep::Point;
use std::fmt::Write;

/// Characters of the longest bar; the bound stands in the middle.
const BAR: usize = 24;
/// A bar covers so many powers of ten on each side of the bound.
const DECADES: f64 = 2.0;
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// Room for what stands at the axes.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// A latency as a bar on a logarithmic scale, with a mark at the bound.
pub(super) fn bar(ns: u64, bound_ns: u64) -> String {
    let decades = (ns.max(1) as f64 / bound_ns.max(1) as f64).log10().clamp(-DECADES, DECADES);
    let length = (f64::midpoint(decades / DECADES, 1.0) * BAR as f64).round() as usize;
    let cell = |at: usize| match (at < length, at == BAR / 2) {
        (true, _) => '#',
        (false, true) => '|',
        (false, false) => ' ',
    };
    (0..=BAR / 2).chain(BAR / 2 + 1..length).map(cell).collect()
}

/// Which latency of a point a line shows, in nanoseconds; a line has no corner where it is not known.
type Of = fn(&Point) -> Option<u64>;

/// The curve of points that are sorted by their rate.
pub(super) fn svg(points: &[Point], bound_ns: u64, title: &str) -> String {
    let measured: Vec<&Point> = points.iter().filter(|point| point.max_ns > 0).collect();
    let all = measured.iter().flat_map(|point| [point.p50_ns, point.p99_ns, point.p999_ns]);
    let all: Vec<f64> = all.flatten().chain([bound_ns]).map(|ns| ns.max(1) as f64).collect();
    let low = all.iter().copied().fold(f64::INFINITY, f64::min).log10().floor();
    let high = all.iter().copied().fold(1.0, f64::max).log10().ceil().max(low + 1.0);
    let most = measured.iter().map(|point| point.rate).fold(1.0, f64::max);
    let x = |rate: f64| LEFT + rate / most * (WIDTH - LEFT - RIGHT);
    let y = |ns: u64| {
        let share = ((ns.max(1) as f64).log10() - low) / (high - low);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}: latency against load</text>\n",
        escaped(title)
    );
    // Writing to a string cannot fail.
    for decade in low as i32..=high as i32 {
        let ns = 10_u64.pow(decade.clamp(0, 18) as u32);
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {0:.1}H{1}\" stroke=\"#ddd\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4} ms</text>",
            y(ns),
            WIDTH - RIGHT,
            LEFT - 6.0,
            y(ns) + 4.0,
            ms_text(ns)
        );
    }
    for quarter in 0..=4 {
        let rate = most * f64::from(quarter) / 4.0;
        let at = HEIGHT - BOTTOM + 18.0;
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{at}\" text-anchor=\"middle\">{rate:.0}/s</text>",
            x(rate)
        );
    }
    let _ = writeln!(
        out,
        "<path d=\"M{LEFT} {0:.1}H{1}\" stroke=\"#c00\" stroke-dasharray=\"6 4\"/>\
         <text x=\"{2}\" y=\"{3:.1}\" fill=\"#c00\">bound {4} ms</text>",
        y(bound_ns),
        WIDTH - RIGHT,
        LEFT + 6.0,
        y(bound_ns) - 5.0,
        ms_text(bound_ns)
    );
    let lines: [(&str, &str, Of); 3] = [
        ("p50", "#2a7", |point| point.p50_ns),
        ("p99", "#27c", |point| point.p99_ns),
        ("p99.9", "#a3a", |point| point.p999_ns),
    ];
    for (number, (name, colour, of)) in lines.iter().enumerate() {
        let corners: Vec<String> = measured
            .iter()
            .filter_map(|point| of(point).map(|ns| (point.rate, ns)))
            .map(|(rate, ns)| format!("{:.1},{:.1}", x(rate), y(ns)))
            .collect();
        let (at, below) = (LEFT + 60.0 * number as f64, HEIGHT - 10.0);
        let _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\
             <text x=\"{at}\" y=\"{below}\" fill=\"{colour}\">{name}</text>",
            corners.join(" ")
        );
    }
    out.push_str("</svg>\n");
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_reaches_the_mark_when_the_bound_is_reached() {
        assert_eq!(bar(10_000, 1_000_000), "            |");
        assert_eq!(bar(1_000_000, 1_000_000), "############|");
        assert_eq!(bar(1_000_000_000, 1_000_000), "#".repeat(BAR));
        assert_eq!(bar(100_000, 1_000_000), "######      |");
    }

    #[test]
    fn a_picture_has_every_point_and_its_title_cannot_break_it() {
        let picture = svg(&[], 1_000_000, "a<b&c");
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
        assert!(picture.contains("a&lt;b&amp;c"));
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }
}
