// Package kubernetes names what tests run and read: Kubernetes' API server for definitions of resources, which
// is its own code for storing, validating, applying and scaling objects, and Istio's definitions.
package kubernetes

import _ "istio.io/api/networking/v1"
