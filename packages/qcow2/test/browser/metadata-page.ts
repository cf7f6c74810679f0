import { metadataJobs } from './metadata.js'

Object.assign(globalThis, { jobs: metadataJobs })
