/* latency.h: histograms of durations, as ModuleStats.latency_counts has them: buckets of a quarter of the power of two
 * below them, so that a percentile is right within a quarter. Pure. */
#ifndef GATEHOUSE_SDK_BASE_LATENCY_H
#define GATEHOUSE_SDK_BASE_LATENCY_H

#include <stddef.h>
#include <stdint.h>

#define LATENCY_BUCKETS 128 /* up to 2^32 microseconds; the last one holds what is longer */

/* The bucket of a duration in microseconds; one below zero counts as zero. */
size_t latency_bucket(int64_t took_us);

/* Where the next bucket begins, in microseconds. */
uint64_t latency_bucket_end_us(size_t bucket);

#endif
