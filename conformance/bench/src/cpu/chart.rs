//! The chart: for each workload, how much slower than native QEMU and Kasane are, as bars on a
//! logarithmic scale that begin at the speed of the host.

use super::protocol::Class;
use super::results::{Results, Workload};
use super::systems::System;
use crate::statistics::median;
use crate::table::number;

const WIDTH: f64 = 920.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 92.0;
const ROW: f64 = 30.0;
const BAR: f64 = 11.0;
const HEADING: f64 = 28.0;

const QEMU: &str = "#8f98a3";
const KASANE: &str = "#1668c7";
const INK: &str = "#1c2024";
const FAINT: &str = "#d5dae0";

/// Makes the drawing.
pub(super) fn svg(results: &Results) -> String {
    let classes: Vec<Class> = Class::SHOWN
        .into_iter()
        .filter(|class| results.of_class(*class).next().is_some())
        .collect();
    let rows: usize = classes.iter().map(|class| results.of_class(*class).count() + 1).sum();
    let end = TOP + rows as f64 * ROW + classes.len() as f64 * HEADING;
    let height = end + 64.0;
    let scale = Scale::covering(results);
    let mut drawing = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"{INK}\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    drawing.push_str(&header(results));
    drawing.push_str(&axis(&scale, end));
    let mut y = TOP;
    for class in classes {
        drawing.push_str(&label(12.0, y + 18.0, "start", "font-weight=\"600\"", class.title()));
        y += HEADING;
        for workload in results.of_class(class) {
            let slower = |system| workload.ratio(system, System::Native);
            drawing.push_str(&pair(&scale, y, &workload.name, &slower));
            y += ROW;
        }
        let mean = |system| results.mean(class, system, System::Native);
        drawing.push_str(&pair(&scale, y, "geometric mean", &mean));
        y += ROW;
    }
    drawing.push_str(&footer(results, end + 40.0));
    drawing.push_str("</svg>\n");
    drawing
}

/// Logarithmic, with whole powers of ten at its ends.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn covering(results: &Results) -> Self {
        let slowdowns = |workload: &Workload| {
            [System::Qemu, System::Kasane].map(|system| workload.ratio(system, System::Native))
        };
        let shown = results.workloads.iter().filter(|one| one.class != Class::Parallel);
        let logarithms: Vec<f64> = shown
            .flat_map(slowdowns)
            .flatten()
            .map(f64::log10)
            .filter(|log| log.is_finite())
            .collect();
        let low = logarithms.iter().copied().fold(0.0, f64::min).floor();
        let high = logarithms.iter().copied().fold(1.0, f64::max).ceil();
        Self { low, high }
    }

    fn x(&self, value: f64) -> f64 {
        let part = (value.log10() - self.low) / (self.high - self.low);
        LEFT + part.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }
}

fn header(results: &Results) -> String {
    let host = &results.host;
    let engine = results.setting.engine_taken.as_deref().unwrap_or(&results.setting.engine);
    let title = "Time against the same program on the host (lower is better)";
    let mut text = label(12.0, 24.0, "start", "font-size=\"16\" font-weight=\"600\"", title);
    let where_and_when = format!("{}, {}, commit {}", host.cpu, host.date, host.commit);
    text.push_str(&label(12.0, 44.0, "start", "", &where_and_when));
    for (x, colour, name) in [
        (12.0, QEMU, host.qemu.split(" (").next().unwrap_or("QEMU").to_owned() + ", TCG"),
        (330.0, KASANE, format!("Kasane, {engine}")),
    ] {
        text.push_str(&format!(
            "<rect x=\"{x}\" y=\"56\" width=\"12\" height=\"12\" rx=\"2\" fill=\"{colour}\"/>\n"
        ));
        text.push_str(&label(x + 18.0, 66.0, "start", "", &name));
    }
    text
}

fn axis(scale: &Scale, end: f64) -> String {
    let mut text = String::new();
    let mut power = scale.low;
    while power <= scale.high {
        let value = 10f64.powf(power);
        let x = scale.x(value);
        let colour = if power == 0.0 { INK } else { FAINT };
        text.push_str(&format!(
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{end}\" stroke=\"{colour}\"/>\n"
        ));
        let name = if power < 0.0 { format!("{value}×") } else { format!("{value:.0}×") };
        text.push_str(&label(x, TOP - 6.0, "middle", "", &name));
        power += 1.0;
    }
    text
}

/// Two bars and their name.
fn pair(scale: &Scale, y: f64, name: &str, slower: &dyn Fn(System) -> Option<f64>) -> String {
    let mut text = label(LEFT - 8.0, y + 16.0, "end", "", name);
    for (system, colour, y) in [(System::Qemu, QEMU, y), (System::Kasane, KASANE, y + BAR + 1.0)] {
        let Some(value) = slower(system).filter(|value| *value > 0.0) else { continue };
        let (one, x) = (scale.x(1.0), scale.x(value));
        let (from, to) = (one.min(x), one.max(x));
        text.push_str(&format!(
            "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\n",
            (to - from).max(1.0)
        ));
        let shown = format!("{}×", number(value));
        text.push_str(&label(to + 4.0, y + 9.5, "start", "font-size=\"10\"", &shown));
    }
    text
}

fn footer(results: &Results, y: f64) -> String {
    let boot = |system| {
        let place = results.places.get(&system)?;
        median(&place.boot_wall())
    };
    let mut words = Vec::new();
    if let (Some(qemu), Some(kasane)) = (boot(System::Qemu), boot(System::Kasane)) {
        words.push(format!(
            "Boot of the guest's kernel to user space: QEMU {} s, Kasane {} s.",
            number(qemu),
            number(kasane)
        ));
    }
    words.push(format!(
        "Medians of {}; load of the host {} before, {} after.",
        results.setting.rounds,
        number(results.host.load_before),
        number(results.host.load_after)
    ));
    label(12.0, y, "start", "", &words.join(" "))
}

fn label(x: f64, y: f64, anchor: &str, style: &str, text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let style = if style.is_empty() { String::new() } else { format!(" {style}") };
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{style}>{text}</text>\n")
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::sample;
    use super::*;

    #[test]
    fn each_workload_and_each_mean_has_two_bars() {
        let drawing = svg(&sample());

        // Two of the legend; sort, matmul and a mean for each of the two classes.
        assert_eq!(drawing.matches(QEMU).count(), 1 + 4);
        assert_eq!(drawing.matches(KASANE).count(), 1 + 4);
        assert!(drawing.contains(">sort</text>") && drawing.contains(">5.00×</text>"), "{drawing}");
    }

    #[test]
    fn what_stands_in_the_text_does_not_become_markup() {
        let drawing = svg(&sample());

        assert!(drawing.contains("A &lt;CPU&gt; &amp; more"), "{drawing}");
        assert_eq!(drawing.matches("<text").count(), drawing.matches("</text>").count());
        assert_eq!(drawing.matches("<svg").count(), drawing.matches("</svg>").count());
    }

    #[test]
    fn what_is_faster_than_native_goes_to_the_left() {
        let mut results = sample();
        results.workloads[0].wall_ns.insert(System::Kasane, vec![5.0]);
        let scale = Scale::covering(&results);

        assert_eq!((scale.low, scale.high), (-1.0, 1.0));
        assert!(scale.x(0.5) < scale.x(1.0));
        assert!(svg(&results).contains(">0.500×</text>"));
    }

    #[test]
    fn nothing_is_drawn_outside_of_the_picture() {
        let scale = Scale { low: 0.0, high: 1.0 };

        assert_eq!(scale.x(1000.0), WIDTH - RIGHT);
        assert_eq!(scale.x(0.001), LEFT);
    }
}
