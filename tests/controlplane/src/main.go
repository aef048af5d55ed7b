// controlplane: a small Kubernetes-style API server for tests. It is built only
// from k8s.io/apiserver, k8s.io/apiextensions-apiserver and k8s.io/api, so it
// has the real machinery (etcd storage, watch cache, server-side apply, CRDs,
// CEL, admission webhooks and policies, impersonation) but no kubelet, no
// scheduler, no garbage collector and only the built-in types in resources.go.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"time"

	noop "go.opentelemetry.io/otel/trace/noop"
	extv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	extv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	extserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	extoptions "k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	extopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	whinit "k8s.io/apiserver/pkg/admission/plugin/webhook/initializer"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/token/tokenfile"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/util/openapi"
	"k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/kube-openapi/pkg/common"

	generated "controlplane/openapi"
)

type resolver struct{ corev1listers.ServiceLister }

func (r resolver) ResolveEndpoint(ns, name string, port int32) (*url.URL, error) {
	return proxy.ResolveCluster(r.ServiceLister, ns, name, port)
}

func die(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		os.Exit(1)
	}
}

func main() {
	klog.InitFlags(nil)
	etcd := flag.String("etcd-servers", "http://127.0.0.1:2379", "comma separated etcd addresses")
	prefix := flag.String("etcd-prefix", "/registry", "key prefix in etcd")
	port := flag.Int("secure-port", 6443, "HTTPS port on 127.0.0.1 (0: any)")
	cert := flag.String("tls-cert-file", "", "server certificate (empty: self-signed in --cert-dir)")
	key := flag.String("tls-private-key-file", "", "server key")
	certDir := flag.String("cert-dir", "pki", "where the self-signed certificate goes")
	clientCA := flag.String("client-ca-file", "", "CA for client certificates")
	tokens := flag.String("token-auth-file", "", "CSV: token,user,uid,\"group1,group2\"")
	mode := flag.String("authorization-mode", "AlwaysAllow", "AlwaysAllow or RBAC")
	anon := flag.Bool("anonymous-auth", true, "accept requests without credentials as system:anonymous")
	flag.Parse()
	ctx := genericapiserver.SetupSignalContext()

	// Options that are shared by both servers of the chain.
	serving := options.NewSecureServingOptions().WithLoopback()
	serving.BindAddress, serving.BindPort = net.IPv4(127, 0, 0, 1), *port
	serving.ServerCert.CertKey.CertFile, serving.ServerCert.CertKey.KeyFile = *cert, *key
	serving.ServerCert.CertDirectory, serving.ServerCert.PairName = *certDir, "server"
	if *cert == "" {
		die(os.MkdirAll(*certDir, 0o700))
		die(serving.MaybeDefaultWithSelfSignedCerts("localhost", nil, []net.IP{serving.BindAddress}))
	}
	etcdOpts := options.NewEtcdOptions(storagebackend.NewDefaultConfig(*prefix, Codecs.LegacyCodec(groupVersions()...)))
	etcdOpts.StorageConfig.EncodeVersioner = schema.GroupVersions(groupVersions())
	etcdOpts.StorageConfig.Transport.ServerList = strings.Split(*etcd, ",")
	run := options.NewServerRunOptions()
	die(run.ComponentGlobalsRegistry.Set())
	die(run.Complete())

	c := genericapiserver.NewConfig(Codecs)
	die(run.ApplyTo(c))
	die(serving.ApplyTo(&c.SecureServing, &c.LoopbackClientConfig))
	c.PublicAddress = serving.BindAddress
	die(etcdOpts.ApplyTo(c))
	c.AggregatedDiscoveryGroupManager = aggregated.NewResourceManager("apis")
	defs := openapi.GetOpenAPIDefinitionsWithoutDisabledFeatures(func(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
		m := extopenapi.GetOpenAPIDefinitions(ref)
		for k, v := range generated.GetOpenAPIDefinitions(ref) {
			m[k] = v
		}
		return m
	})
	namer := openapinamer.NewDefinitionNamer(Scheme, extserver.Scheme)
	c.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(defs, namer)
	c.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(defs, namer)
	c.OpenAPIConfig.Info.Title, c.OpenAPIV3Config.Info.Title = "Kubernetes", "Kubernetes"

	// Clients of ourselves.
	c.LoopbackClientConfig.QPS, c.LoopbackClientConfig.Burst = -1, -1
	kube, err := kubernetes.NewForConfig(c.LoopbackClientConfig)
	die(err)
	dyn, err := dynamic.NewForConfig(c.LoopbackClientConfig)
	die(err)
	inf := informers.NewSharedInformerFactory(kube, 10*time.Minute)

	// Authentication: client certificates, a token file, anonymous.
	var authn []authenticator.Request
	if *clientCA != "" {
		ca, err := dynamiccertificates.NewDynamicCAContentFromFile("client-ca", *clientCA)
		die(err)
		die(c.Authentication.ApplyClientCert(ca, c.SecureServing))
		authn = append(authn, x509.NewDynamic(ca.VerifyOptions, x509.CommonNameUserConversion))
	}
	minter := newMinter()
	authn = append(authn, bearertoken.New(minter))
	if *tokens != "" {
		t, err := tokenfile.NewCSV(*tokens)
		die(err)
		authn = append(authn, bearertoken.New(t))
	}
	c.Authentication.Authenticator = group.NewAuthenticatedGroupAdder(union.New(authn...))
	if *anon {
		// Wrong credentials are a 401, as in kube-apiserver; only a request without any is anonymous.
		c.Authentication.Authenticator = union.NewFailOnError(c.Authentication.Authenticator, anonymous.NewAuthenticator(nil))
	}
	switch *mode {
	case "AlwaysAllow":
		c.Authorization.Authorizer = authorizerfactory.NewAlwaysAllowAuthorizer()
	case "RBAC":
		c.Authorization.Authorizer = authorizer.Authorizer(newRBAC(inf))
	default:
		die(fmt.Errorf("unknown authorization mode %q", *mode))
	}

	// Admission: NamespaceLifecycle, webhooks and CEL policies, as in k8s.io/apiserver.
	services := resolver{inf.Core().V1().Services().Lister()}
	wrapper := webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil, c.LoopbackClientConfig, noop.NewTracerProvider())
	die(options.NewAdmissionOptions().ApplyTo(c, inf, kube, dyn, c.FeatureGate, c.EffectiveVersion,
		whinit.NewPluginInitializer(wrapper, services)))

	// Server 1, the delegate: CustomResourceDefinitions and custom resources.
	ec, eo := *c, *etcdOpts
	ec.PostStartHooks = map[string]genericapiserver.PostStartHookConfigEntry{}
	eo.StorageConfig.Codec = extserver.Codecs.LegacyCodec(extv1beta1.SchemeGroupVersion, extv1.SchemeGroupVersion)
	eo.StorageConfig.EncodeVersioner = runtime.NewMultiGroupVersioner(extv1.SchemeGroupVersion, schema.GroupKind{Group: extv1.GroupName})
	eo.SkipHealthEndpoints = true
	die(eo.ApplyTo(&ec))
	die(options.NewAPIEnablementOptions().ApplyTo(&ec, extserver.DefaultAPIResourceConfigSource(), extserver.Scheme))
	crds, err := (&extserver.Config{
		GenericConfig: &genericapiserver.RecommendedConfig{Config: ec, SharedInformerFactory: inf},
		ExtraConfig: extserver.ExtraConfig{
			CRDRESTOptionsGetter: extoptions.NewCRDRESTOptionsGetter(eo, ec.ResourceTransformers, ec.StorageObjectCountTracker),
			MasterCount:          1,
			ServiceResolver:      services,
			AuthResolverWrapper:  wrapper,
		},
	}).Complete().New(genericapiserver.NewEmptyDelegate())
	die(err)

	// Server 2, in front: the built-in types.
	c.BuildHandlerChainFunc = func(h http.Handler, c *genericapiserver.Config) http.Handler {
		return genericapiserver.DefaultBuildHandlerChain(mergedOpenAPI(h, crds.GenericAPIServer.UnprotectedHandler()), c)
	}
	s, err := c.Complete(inf).New("controlplane", crds.GenericAPIServer)
	die(err)
	die(installResources(s, c.RESTOptionsGetter, c.Authorization.Authorizer, minter))
	listCRDGroups(s, crds)
	s.AddPostStartHookOrDie("system-namespaces", func(h genericapiserver.PostStartHookContext) error {
		return startNamespaces(h, kube, c.LoopbackClientConfig)
	})
	if *mode == "RBAC" {
		s.AddPostStartHookOrDie("rbac-bootstrap", func(h genericapiserver.PostStartHookContext) error { return bootstrapRBAC(h, kube) })
	}
	die(s.PrepareRun().RunWithContext(ctx))
}

// listCRDGroups adds the groups of CRDs to the plain list under /apis, which in
// a full cluster kube-aggregator serves.
func listCRDGroups(s *genericapiserver.GenericAPIServer, crds *extserver.CustomResourceDefinitions) {
	lister := crds.Informers.Apiextensions().V1().CustomResourceDefinitions()
	sync := func(any) {
		groups := map[string]*metav1.APIGroup{}
		for _, o := range lister.Informer().GetStore().List() {
			crd := o.(*extv1.CustomResourceDefinition)
			if builtinGroups[crd.Spec.Group] {
				continue
			}
			g := groups[crd.Spec.Group]
			if g == nil {
				g = &metav1.APIGroup{Name: crd.Spec.Group}
				groups[crd.Spec.Group] = g
			}
			for _, v := range crd.Spec.Versions {
				gv := metav1.GroupVersionForDiscovery{GroupVersion: crd.Spec.Group + "/" + v.Name, Version: v.Name}
				if v.Served && !hasVersion(g.Versions, gv) {
					g.Versions = append(g.Versions, gv)
				}
			}
		}
		crdGroups.Lock()
		defer crdGroups.Unlock()
		for name := range crdGroups.seen {
			if groups[name] == nil {
				s.DiscoveryGroupManager.RemoveGroup(name)
				delete(crdGroups.seen, name)
			}
		}
		for name, g := range groups {
			if len(g.Versions) == 0 {
				continue
			}
			sortVersions(g.Versions)
			g.PreferredVersion = g.Versions[0]
			s.DiscoveryGroupManager.AddGroup(*g)
			crdGroups.seen[name] = true
		}
	}
	s.DiscoveryGroupManager.AddGroup(metav1.APIGroup{Name: extv1.GroupName,
		Versions:         []metav1.GroupVersionForDiscovery{{GroupVersion: extv1.SchemeGroupVersion.String(), Version: "v1"}},
		PreferredVersion: metav1.GroupVersionForDiscovery{GroupVersion: extv1.SchemeGroupVersion.String(), Version: "v1"}})
	lister.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: sync, UpdateFunc: func(_, n any) { sync(n) }, DeleteFunc: sync})
}

// mergedOpenAPI joins the OpenAPI v3 documents of both servers.
func mergedOpenAPI(front, back http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		get := func(h http.Handler) *httptest.ResponseRecorder {
			rec, q := httptest.NewRecorder(), r.Clone(context.WithoutCancel(r.Context()))
			q.Header.Del("Accept-Encoding")
			q.Header.Del("If-None-Match")
			h.ServeHTTP(rec, q)
			return rec
		}
		switch {
		case r.URL.Path == "/openapi/v3":
			var a, b struct {
				Paths map[string]any `json:"paths"`
			}
			if json.Unmarshal(get(front).Body.Bytes(), &a) != nil || a.Paths == nil {
				break
			}
			json.Unmarshal(get(back).Body.Bytes(), &b)
			for k, v := range b.Paths {
				if strings.HasPrefix(k, "apis/") {
					a.Paths[k] = v
				}
			}
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(a)
			return
		case strings.HasPrefix(r.URL.Path, "/openapi/v3/"):
			// For a group that it does not know, kube-openapi answers 200 with no body.
			if rec := get(front); rec.Code == http.StatusOK && rec.Body.Len() == 0 {
				back.ServeHTTP(w, r)
				return
			}
		}
		front.ServeHTTP(w, r)
	})
}
