//! Builds the metric families of a scrape.

use std::collections::HashMap;

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram as HistogramValue, LabelPair, Metric as Sample, MetricFamily,
    MetricType,
};

use super::{
    catalog::{Kind, Metric},
    histogram::Histogram,
};

/// The metric families of a scrape, by name.
#[derive(Default)]
pub(super) struct Families(HashMap<&'static str, MetricFamily>);

impl Families {
    /// Adds a sample of a counter or gauge. `labels` are the values of the metric's labels in the metric's order.
    pub(super) fn add(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        let mut sample = sample(metric, labels);
        match metric.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                sample.set_counter(counter);
            }
            Kind::Gauge | Kind::Histogram => {
                debug_assert_eq!(metric.kind, Kind::Gauge, "{} is a histogram", metric.name);
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                sample.set_gauge(gauge);
            }
        }
        self.push(metric, sample);
    }

    /// Adds a histogram.
    pub(super) fn add_histogram(&mut self, metric: &'static Metric, histogram: &Histogram) {
        let mut value = HistogramValue::default();
        value.set_sample_count(histogram.count());
        value.set_sample_sum(histogram.sum());
        let buckets = histogram.cumulative().map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        value.set_bucket(buckets.collect());
        let mut sample = sample(metric, &[]);
        sample.set_histogram(value);
        self.push(metric, sample);
    }

    fn push(&mut self, metric: &'static Metric, sample: Sample) {
        let family = self.0.entry(metric.name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(metric.name.to_owned());
            family.set_help(metric.help.to_owned());
            family.set_field_type(match metric.kind {
                Kind::Counter => MetricType::COUNTER,
                Kind::Gauge => MetricType::GAUGE,
                Kind::Histogram => MetricType::HISTOGRAM,
            });
            family
        });
        family.mut_metric().push(sample);
    }

    /// The families that have a sample.
    pub(super) fn into_families(self) -> Vec<MetricFamily> {
        self.0.into_values().collect()
    }
}

fn sample(metric: &Metric, labels: &[&str]) -> Sample {
    debug_assert_eq!(metric.labels.len(), labels.len(), "wrong number of labels for {}", metric.name);
    let pairs = metric.labels.iter().zip(labels).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    let mut sample = Sample::default();
    sample.set_label(pairs.collect());
    sample
}
