-- Submit the token that stands in the URL, again and again; otsd makes the attempts.
wrk.method = "POST"
