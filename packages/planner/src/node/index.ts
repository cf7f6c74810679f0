export { LoadError, type LoadErrorCode } from './errors.js'
export {
  type DomainLocation,
  type LoadedDomain,
  type LoadProblem,
  listDomains,
  loadDomain,
} from './load-domain.js'
export { type MapRule, mapSource, parseMapRule } from './map-source.js'
