// Table of contents of the module: what TypeScript sees. All memory is imported and owned by the caller
// (see src/engine.ts); no function here allocates, grows memory or keeps state but the `last…` results that
// the call itself sets.
export { HEAP_BASE } from './bytes'
export * from './extension'
export * from './directory'
export * from './table'
export { complement, difference, intersection, maskTail, union, xor } from './merge'
export { count, countRange, mergeCount } from './count'
export * from './compare'
export * from './fill'
export * from './edges'
export { coarsen } from './coarsen'
export { refine, refineMerge } from './refine'
