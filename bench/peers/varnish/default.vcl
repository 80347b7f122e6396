# Varnish from memory; what it says of each answer beside the body is whether it was a hit.
vcl 4.1;
import std;

backend origin {
    .host = "@origin_host@";
    .port = "@origin_port@";
}

sub vcl_recv {
    # Browsers spell what they accept in many ways; the origin knows two codings.
    if (req.http.Accept-Encoding ~ "br") {
        set req.http.Accept-Encoding = "br";
    } elsif (req.http.Accept-Encoding ~ "gzip") {
        set req.http.Accept-Encoding = "gzip";
    } else {
        unset req.http.Accept-Encoding;
    }
    return (hash);
}

sub vcl_backend_response {
    set beresp.grace = 1h;
}

sub vcl_deliver {
    if (obj.hits > 0) {
        set resp.http.X-Cache = "HIT";
    } else {
        set resp.http.X-Cache = "MISS";
    }
}
