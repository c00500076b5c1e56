package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// peer is a server that is measured beside an edge.
type peer struct {
	*process
	http, https string // https is "" for Varnish, which has no TLS
	args        []string
	core        int
}

// tools are the programs used beside edgewalk, with the Debian packages that bring them.
var tools = []struct{ program, pack string }{
	{"nginx", "nginx-light"}, {"varnishd", "varnish"}, {"wrk", "wrk"}, {"h2load", "nghttp2-client"},
	{"taskset", "util-linux"},
}

func packages() (all []string) {
	for _, t := range tools {
		all = append(all, t.pack)
	}
	return all
}

// have reports whether a program is in PATH, or says where to get it.
func have(program string) bool {
	if lookUp(program) != "" {
		return true
	}
	for _, t := range tools {
		if t.program == program {
			fmt.Fprintf(os.Stderr, "%s is not in PATH and is left out: apt-get install --no-install-recommends %s\n", program, t.pack)
		}
	}
	return false
}

// lookUp finds a program, also where Debian keeps daemons.
func lookUp(program string) string {
	for _, name := range []string{program, "/usr/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// peerVersions are the versions of what is there.
func peerVersions() (all []string) {
	for _, v := range [][]string{{"nginx", "-v"}, {"varnishd", "-V"}, {"wrk", "-v"}, {"h2load", "--version"}} {
		path := lookUp(v[0])
		if path == "" {
			continue
		}
		out, _ := exec.Command(path, v[1]).CombinedOutput() // wrk -v exits with 1.
		line, _, _ := strings.Cut(string(out), "\n")
		line, _, _ = strings.Cut(line, " Copyright")
		line, _, _ = strings.Cut(strings.TrimPrefix(line, "nginx version: "), " revision")
		all = append(all, strings.Replace(line, "(", "", 1))
	}
	return all
}

// nginxConf is nginx as an edge: one worker for each core, sendfile, descriptors of hot files
// kept open, one request to the origin for clients of the same file, and no log, as the edge has
// none by default.
const nginxConf = `
daemon off;
user root;
worker_processes %[7]d;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log error;
events { worker_connections 8192; }
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	keepalive_requests 1000000000;
	keepalive_timeout 75;
	open_file_cache max=10000 inactive=60s;
	client_body_temp_path %[1]s/body;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	proxy_temp_path %[1]s/temp;
	proxy_cache_path %[1]s/cache levels=1:2 keys_zone=bench:64m max_size=10g inactive=24h use_temp_path=off;
	upstream origin { server %[2]s; keepalive 64; }
	server {
		listen %[3]s backlog=4096;
		listen %[4]s ssl http2;
		ssl_protocols TLSv1.2 TLSv1.3;
		ssl_certificate %[5]s;
		ssl_certificate_key %[6]s;
		ssl_session_cache shared:ssl:10m;
		http2_max_requests 1000000000;
		location / {
			proxy_pass http://origin;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_cache bench;
			proxy_force_ranges on;
			proxy_cache_lock on;
			proxy_cache_valid 200 10h;
			add_header Cache-Status $upstream_cache_status;
		}
	}
}
`

// startNginx starts nginx in front of an origin; nil without an error if there is none.
func (b *bench) startNginx(ctx context.Context, core int, o *origin) (*peer, error) {
	if !have("nginx") {
		return nil, nil
	}
	dir, err := b.folder("nginx")
	if err != nil {
		return nil, err
	}
	certificate, key, err := b.certificate()
	if err != nil {
		return nil, err
	}
	p := &peer{core: core}
	for _, at := range []*string{&p.http, &p.https} {
		if *at, err = b.freeAddress(); err != nil {
			return nil, err
		}
	}
	conf := fmt.Sprintf(nginxConf, dir, strings.TrimPrefix(o.url, "http://"), p.http, p.https, certificate, key,
		max(1, b.cores))
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	p.args = []string{lookUp("nginx"), "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", path}
	return p, b.runPeer(ctx, "nginx", p)
}

// vcl caches everything for ten hours and passes the client's request on as it is.
const vcl = `vcl 4.1;
backend origin { .host = "%s"; .port = "%s"; }
sub vcl_backend_response { set beresp.ttl = 10h; }
sub vcl_deliver { if (obj.hits > 0) { set resp.http.Cache-Status = "HIT"; } }
`

// startVarnish starts Varnish with its cache in memory; nil without an error if there is none.
func (b *bench) startVarnish(ctx context.Context, core int, o *origin) (*peer, error) {
	if !have("varnishd") {
		return nil, nil
	}
	dir, err := b.folder("varnish")
	if err != nil {
		return nil, err
	}
	p := &peer{core: core}
	if p.http, err = b.freeAddress(); err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(strings.TrimPrefix(o.url, "http://"), ":")
	path := filepath.Join(dir, "bench.vcl")
	if err := os.WriteFile(path, fmt.Appendf(nil, vcl, host, port), 0o644); err != nil {
		return nil, err
	}
	p.args = []string{
		lookUp("varnishd"), "-F", "-j", "none", "-n", filepath.Join(dir, "work"), "-f", path, "-a", p.http, "-s",
		"malloc,1g", "-p", "thread_pool_max=5000",
	}
	return p, b.runPeer(ctx, "varnish", p)
}

// runPeer executes a peer, for the first time or again, and waits until it answers.
func (b *bench) runPeer(ctx context.Context, name string, p *peer) (err error) {
	if p.process, err = b.start(name, p.core, p.args[0], p.args[1:]...); err != nil {
		return err
	}
	return p.await(ctx, func() bool {
		c, err := dial(p.http)
		if err != nil {
			return false
		}
		defer c.close()
		r, err := c.get("/1/up")
		return err == nil && r.status == 200
	})
}
