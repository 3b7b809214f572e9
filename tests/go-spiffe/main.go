// A peer that shares no code with this project: go-spiffe, SPIFFE's reference library, behind a few commands. Each prints JSON, one
// object per line. Tests start it to see what a stock SPIFFE program sees.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
)

const usage = `usage:
  x509 SOCKET [AUTHORITY]                      what the Workload API gives, once; AUTHORITY in place of gRPC's own
  watch SOCKET                                 the same, at every change
  jwt SOCKET AUDIENCE                          a JWT-SVID
  serve SOCKET PEER_ID                         mutual TLS server, on a free port of loopback
  dial SOCKET ADDRESS PEER_ID                  mutual TLS client
  verify BUNDLE TRUST_DOMAIN UNIX_TIME CHAIN…  PEM chains against a bundle (JWKS)
  bundle TRUST_DOMAIN FILE…                    reads bundles (JWKS)
  publish-web BUNDLE TRUST_DOMAIN CERT KEY     bundle endpoint, profile https_web
  publish-spiffe BUNDLE TRUST_DOMAIN SOCKET    bundle endpoint, profile https_spiffe`

type object = map[string]any

func say(value object) {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}

func main() {
	ctx := context.Background()
	args := os.Args[1:]
	arity := map[string]int{
		"x509": 1, "watch": 1, "jwt": 2, "serve": 2, "dial": 3, "verify": 4, "bundle": 2, "publish-web": 4, "publish-spiffe": 3,
	}
	if len(args) == 0 || arity[args[0]] == 0 || len(args)-1 < arity[args[0]] {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(64)
	}
	commands := map[string]func(context.Context, []string) error{
		"x509": fetch, "watch": watch, "jwt": jwt, "serve": serve, "dial": dial, "verify": verify, "bundle": bundle,
		"publish-web": publishWeb, "publish-spiffe": publishSpiffe,
	}
	if err := commands[args[0]](ctx, args[1:]); err != nil {
		say(object{"error": err.Error()})
		os.Exit(1)
	}
}

func described(state *workloadapi.X509Context) object {
	svids := []object{}
	for _, svid := range state.SVIDs {
		leaf := svid.Certificates[0]
		svids = append(svids, object{
			"id": svid.ID.String(), "serial": leaf.SerialNumber.Text(16), "not_after": leaf.NotAfter.Unix(), "chain": len(svid.Certificates),
		})
	}
	bundles := object{}
	for _, bundle := range state.Bundles.Bundles() {
		bundles[bundle.TrustDomain().Name()] = len(bundle.X509Authorities())
	}
	return object{"svids": svids, "bundles": bundles}
}

func fetch(ctx context.Context, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	options := []workloadapi.ClientOption{workloadapi.WithAddr(args[0])}
	if len(args) > 1 {
		options = append(options, workloadapi.WithDialOptions(grpc.WithAuthority(args[1])))
	}
	state, err := workloadapi.FetchX509Context(ctx, options...)
	if err != nil {
		return err
	}
	say(described(state))
	return nil
}

type watcher struct{}

func (watcher) OnX509ContextUpdate(state *workloadapi.X509Context) { say(described(state)) }
func (watcher) OnX509ContextWatchError(err error)                  { say(object{"error": err.Error()}) }

func watch(ctx context.Context, args []string) error {
	return workloadapi.WatchX509Context(ctx, watcher{}, workloadapi.WithAddr(args[0]))
}

func jwt(ctx context.Context, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	svid, err := workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: args[1]}, workloadapi.WithAddr(args[0]))
	if err != nil {
		return err
	}
	say(object{"id": svid.ID.String()})
	return nil
}

func source(ctx context.Context, socket string) (*workloadapi.X509Source, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(socket)))
}

// What a finished handshake says, as the test compares it with our own end.
func session(connection *tls.Conn) (object, error) {
	state := connection.ConnectionState()
	id, err := x509svid.IDFromCert(state.PeerCertificates[0])
	if err != nil {
		return nil, err
	}
	exporter, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
	if err != nil {
		return nil, err
	}
	return object{"peer": id.String(), "version": tls.VersionName(state.Version), "resumed": state.DidResume, "exporter": exporter}, nil
}

func serve(ctx context.Context, args []string) error {
	source, err := source(ctx, args[0])
	if err != nil {
		return err
	}
	peer, err := spiffeid.FromString(args[1])
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	config := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeID(peer))
	say(object{"listening": listener.Addr().String()})
	for {
		stream, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer stream.Close()
			connection := tls.Server(stream, config)
			connection.SetDeadline(time.Now().Add(10 * time.Second))
			if err := connection.Handshake(); err != nil {
				say(object{"error": err.Error()})
				return
			}
			about, err := session(connection)
			if err != nil {
				say(object{"error": err.Error()})
				return
			}
			line, err := bufio.NewReader(connection).ReadString('\n')
			if err == nil {
				_, err = connection.Write([]byte(line))
			}
			if err != nil {
				about["error"] = err.Error()
			}
			say(about)
		}()
	}
}

func dial(ctx context.Context, args []string) error {
	source, err := source(ctx, args[0])
	if err != nil {
		return err
	}
	peer, err := spiffeid.FromString(args[2])
	if err != nil {
		return err
	}
	config := tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(peer))
	connection, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", args[1], config)
	if err != nil {
		return err
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(10 * time.Second))
	about, err := session(connection)
	if err != nil {
		return err
	}
	// With TLS 1.3 a server that refuses us says so only now.
	if _, err := connection.Write([]byte("ping\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil {
		return err
	}
	about["echo"] = line
	say(about)
	return nil
}

func readBundle(trustDomain, file string) (*spiffebundle.Bundle, error) {
	domain, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return nil, err
	}
	return spiffebundle.Load(domain, file)
}

func verify(_ context.Context, args []string) error {
	bundle, err := readBundle(args[1], args[0])
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err
	}
	for _, file := range args[3:] {
		chain, err := certificates(file)
		if err != nil {
			return err
		}
		id, _, err := x509svid.Verify(chain, bundle, x509svid.WithTime(time.Unix(seconds, 0)))
		if err != nil {
			say(object{"file": file, "error": err.Error()})
		} else {
			say(object{"file": file, "id": id.String()})
		}
	}
	return nil
}

func certificates(file string) ([]*x509.Certificate, error) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var found []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return found, nil
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			// Its parser refuses some of what a verifier would: the same verdict, earlier.
			return []*x509.Certificate{{}}, nil
		}
		found = append(found, certificate)
	}
}

func bundle(_ context.Context, args []string) error {
	for _, file := range args[1:] {
		bundle, err := readBundle(args[0], file)
		if err != nil {
			say(object{"file": file, "error": err.Error()})
			continue
		}
		about := object{"file": file, "authorities": len(bundle.X509Authorities())}
		if sequence, ok := bundle.SequenceNumber(); ok {
			about["sequence"] = sequence
		}
		if hint, ok := bundle.RefreshHint(); ok {
			about["refresh_s"] = int64(hint / time.Second)
		}
		say(about)
	}
	return nil
}

// Reads the file at each request, so that a test can replace it.
func handler(file, trustDomain string) (http.Handler, error) {
	bundle, err := readBundle(trustDomain, file)
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		now, err := readBundle(trustDomain, file)
		if err != nil {
			http.Error(writer, err.Error(), http.StatusInternalServerError)
			return
		}
		handler, err := federation.NewHandler(bundle.TrustDomain(), now)
		if err != nil {
			http.Error(writer, err.Error(), http.StatusInternalServerError)
			return
		}
		handler.ServeHTTP(writer, request)
	}), nil
}

func publish(config *tls.Config, file, trustDomain string) error {
	handler, err := handler(file, trustDomain)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	say(object{"listening": listener.Addr().String()})
	server := http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, TLSConfig: config}
	return server.ServeTLS(listener, "", "")
}

func publishWeb(_ context.Context, args []string) error {
	pair, err := tls.LoadX509KeyPair(args[2], args[3])
	if err != nil {
		return err
	}
	return publish(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, args[0], args[1])
}

func publishSpiffe(ctx context.Context, args []string) error {
	source, err := source(ctx, args[2])
	if err != nil {
		return err
	}
	return publish(tlsconfig.TLSServerConfig(source), args[0], args[1])
}
