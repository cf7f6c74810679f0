export { bitmapCosts } from './bitmap-costs.js'
export { LoadError, type LoadErrorCode } from './errors.js'
export { namesThen } from './file-ids.js'
export { type DomainImages, type OpenImagesOptions, openDomainImages } from './images.js'
export {
  type DomainLocation,
  type LoadedDomain,
  type LoadProblem,
  listDomains,
  loadDomain,
} from './load-domain.js'
export { type MapRule, mapSource, parseMapRule } from './map-source.js'
export { measureBodies } from './measure.js'
export { measureOrders } from './measure-order.js'
