package com.example.greetings;

import org.apache.catalina.connector.Connector;
import org.crac.Context;
import org.crac.Core;
import org.crac.Resource;

/** Closes Tomcat's connector, with its connections, before a checkpoint; opens it after. */
class Door implements Resource {
    private final Connector connector;

    Door(Connector connector) {
        this.connector = connector;
        // Otherwise a stopped connector keeps its listening socket.
        connector.setProperty("bindOnInit", "false");
        Core.getGlobalContext().register(this);
    }

    @Override
    public void beforeCheckpoint(Context<? extends Resource> context) throws Exception {
        connector.stop();
    }

    @Override
    public void afterRestore(Context<? extends Resource> context) throws Exception {
        connector.start();
    }

    @Override
    public String toString() {
        return "port " + connector.getPort();
    }
}
