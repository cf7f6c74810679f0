// Table of contents of the module: what TypeScript sees. All memory is imported and owned by the caller
// (see src/engine.ts); no function here allocates, grows memory or keeps state but the `last…` results that
// the call itself sets.
export { HEAP_BASE } from './bytes'
export * from './extension'
export * from './directory'
export * from './table'
export * from './merge'
export * from './count'
export * from './edges'
export * from './granularity'
