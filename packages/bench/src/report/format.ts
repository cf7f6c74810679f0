import type { Spread } from './ratios.js'

/** Two digits that mean something, three above ten. */
export function ratio(value: number): string {
  if (value >= 100) return `${Math.round(value).toLocaleString('en')}×`
  if (value >= 10) return `${value.toFixed(1)}×`
  if (value >= 0.1) return `${value.toFixed(2)}×`
  return value < 0.001 ? '< 0.001×' : `${value.toFixed(3)}×`
}

/** The median; where the cases lie apart, from where to where. */
export function spreadText(spread: Spread | undefined): string {
  if (spread === undefined) return '–'
  if (spread.max / spread.min < 1.1) return ratio(spread.median)
  return `${ratio(spread.median)} (${ratio(spread.min)} … ${ratio(spread.max)})`
}

/** Nanoseconds, in the unit that suits. */
export function time(ns: number): string {
  if (ns < 1e3) return `${ns.toFixed(0)} ns`
  if (ns < 1e6) return `${digits(ns / 1e3)} µs`
  return ns < 1e9 ? `${digits(ns / 1e6)} ms` : `${digits(ns / 1e9)} s`
}

/** Bytes, in decimal units, as memory is told in the targets. */
export function megabytes(bytes: number | undefined): string {
  if (bytes === undefined) return '–'
  return bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(2)} GB`
}

/** Bytes a nanosecond are GB a second. */
export function rate(bytes: number, ns: number): string {
  return `${digits(bytes / ns)} GB/s`
}

function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)
}
