import { resolve } from 'node:path'
import type { CheckpointOptions } from './with-domain.js'

/** The arguments that tell another call where the domain is; paths hold wherever it runs. */
export function domainArguments(options: CheckpointOptions): readonly string[] {
  const { domain, libvirtRoot, domainXml, checkpointDir, mapSource = [], dialect } = options
  return [
    ...(domain === undefined ? [] : ['--domain', domain]),
    ...(libvirtRoot === undefined ? [] : ['--libvirt-root', resolve(libvirtRoot)]),
    ...(domainXml === undefined ? [] : ['--domain-xml', resolve(domainXml)]),
    ...(checkpointDir === undefined ? [] : ['--checkpoint-dir', resolve(checkpointDir)]),
    ...mapSource.flatMap(rule => ['--map-source', absoluteRule(rule)]),
    ...(dialect === undefined || dialect === 'auto' ? [] : ['--dialect', dialect]),
  ]
}

/** OLD=NEW, with NEW as a path that holds wherever it is used. */
function absoluteRule(rule: string): string {
  const split = rule.indexOf('=')
  return `${rule.slice(0, split)}=${resolve(rule.slice(split + 1))}`
}
